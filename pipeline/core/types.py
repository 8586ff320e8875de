"""The words of the pipeline: what flows from one stage to the next. Standard library only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

SPLITS = ("train", "validation", "test", "few_shot")
PLAIN = "plain"  # the role of a prompt that is bare text to be continued, and no chat


@dataclass(frozen=True)
class Example:
    """One prompt of a task and what is needed to train on it and to score an answer to it.

    messages: chat turns, each ``{"role": ..., "content": ...}``; the last is the user's. Or one message whose role is
        ``plain``: its content is continued as it stands, without a chat template. A turn may have ``images``, a list of
        pictures that stand before its text: paths of files, or data URLs.
    target: the reference completion, as text, that next-token prediction trains on.
    meta: what the task's scorer needs (an answer, unit tests, options), JSON values only. A task whose prompts offer
        choices has them here: ``choices``, label to text in the order of mention, and ``answer``, the right label.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    target: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures of all turns, in order."""
        return tuple(picture for message in self.messages for picture in message.get("images", ()))

    @property
    def choices(self) -> dict[str, str]:
        """Label to text of the choices that the prompt offers, a choice without a text being its label; {} for none."""
        return {label: text or label for label, text in self.meta.get("choices", {}).items()}

    def after(self, solved: "Sequence[Example]") -> "Example":
        """The same question, with others and their targets in the turns before it."""
        *system, question = self.messages
        turns = [turn for one in solved for turn in (one.messages[-1], {"role": "assistant", "content": one.target})]
        return replace(self, messages=(*system, *turns, question))


def conversation(system: str, turns: Sequence[tuple[str, str]], question: str) -> tuple[Mapping[str, Any], ...]:
    """The messages of an example: the system's, worked questions with their answers (``turns``), and the question."""
    messages = [("system", system)]
    for asked, answered in turns:
        messages += [("user", asked), ("assistant", answered)]
    return tuple({"role": role, "content": content} for role, content in [*messages, ("user", question)])


@dataclass(frozen=True)
class Completion:
    """A model's answer to one example.

    tokens: ids generated, the end-of-sequence token included when ``finished``.
    finished: the model ended the answer itself, before the token limit.
    """

    id: str
    text: str
    tokens: int
    prompt_tokens: int
    finished: bool


@dataclass(frozen=True)
class Score:
    """What a task's scorer says of one completion.

    value: in [0, 1]. correct: the yes or no that reward and accuracy use.
    parsed: the answer that was read off the completion, as text; None where none could be.
    marked: whether that answer stood where the task asked for it (behind "#### " or "the answer is", in a box, in a
        block of code, or as the end of a short answer), and was not merely found somewhere in the text.
    also: further metrics of the same completion, by name, in [0, 1]: say, whether it passes stricter tests, too.
    """

    id: str
    value: float
    correct: bool
    parsed: str | None
    marked: bool = True
    also: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """A file of a public repository, at one commit: what it holds can be got again.

    host: the model hub (of data sets), or GitHub. path: in the repository. sha256: of the file's bytes, where known.
    """

    host: Literal["hub", "github"]
    repository: str
    revision: str
    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Table:
    """One table of a benchmark, e.g. its test split, and where its rows are.

    columns: what every row must have. origins: the files, joined in this order. mirror: the same table's files in a
    mirror folder, in theirs; none where no mirror is known to have it. header: the names of all columns of files
    that have no line of names. within: the name of the list of rows in files that are one JSON object.
    """

    columns: tuple[str, ...]
    origins: tuple[Origin, ...]
    mirror: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    within: str = ""


# A task's scorer: examples and their answers, in the same order, to scores. A batch, because code runs in a pool.
Scorer = Callable[[Sequence[Example], Sequence[str]], list[Score]]


@dataclass(frozen=True)
class Mixture:
    """How K experts are mixed: what every adaptation strategy returns.

    experts: names of the K experts, in the order of the coefficients.
    axis: what a row of ``coefficients`` belongs to: a prompt (``ids`` names them, in order), a decoder layer
        (depth order), or everything (``all``: one row).
    coefficients: one row of K numbers each.
    mix: ``paper`` is z' = Σ α_k z_k; ``delta`` is z' = 1 + Σ α_k (z_k − 1). A row of zeros means the base
        model under either (dispatch to "others").
    """

    experts: tuple[str, ...]
    axis: Literal["all", "layer", "prompt"]
    coefficients: tuple[tuple[float, ...], ...]
    mix: Literal["paper", "delta"]
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.experts) for row in self.coefficients):
            raise ValueError(f"expected rows of {len(self.experts)} coefficients, one per expert")
        if self.axis == "prompt" and len(self.ids) != len(self.coefficients):
            raise ValueError(f"expected one id per row, got {len(self.ids)} ids, {len(self.coefficients)} rows")
        if self.axis == "all" and len(self.coefficients) != 1:
            raise ValueError(f"expected a single row of coefficients, got {len(self.coefficients)}")
