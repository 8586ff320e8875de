"""What a decoding job is made of: its answers, its drafts, and a batch of prompts that has been computed."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, Literal, ParamSpec, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import LongTensor, Tensor

from pipeline.core.config import Section
from pipeline.model.decoding.cache import Cache
from pipeline.model.decoding.repetition import Repetition
from pipeline.model.forward.base import Adapted
from pipeline.model.forward.linear import reordered

# What a choice's log-likelihood is divided by: nothing, its tokens, or its characters.
Per = Literal["sum", "token", "character"]


class Decoding(Section, at="tasks.{task}.decoding"):
    """How a task is answered: by writing, or by choosing.

    max_new_tokens: of a written answer, at most.
    choose_by: the likeliest of the choices that the prompt offers is the answer, and nothing is written (see
        ``decoding.choose``). Likelihoods are compared as they are (``sum``), or per ``token`` or ``character``.
    repetition_penalty, no_repeat_ngram: see ``Repetition``; they rule the test answers alone, not those that are learnt
        from or that a search compares.
    """

    max_new_tokens: int | None = Field(default=None, ge=1)
    choose_by: Per | None = None
    repetition_penalty: float = Field(default=1.0, ge=1)
    no_repeat_ngram: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.max_new_tokens is None) == (self.choose_by is None):
            raise ValueError("expected either max_new_tokens or choose_by")
        return self

    @property
    def limit(self) -> int:
        """The most tokens of a written answer."""
        if self.max_new_tokens is None:
            raise ValueError("a task that is answered by choosing writes no tokens")
        return self.max_new_tokens

    @property
    def repetition(self) -> Repetition:
        return Repetition(self.repetition_penalty, self.no_repeat_ngram)


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt.

    ids: its tokens, the end-of-sequence token included.
    logprobs: of each token (nats).
    finished: whether it ended itself, and not at the limit.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


Given = ParamSpec("Given")
Result = TypeVar("Result")


def job(function: Callable[Concatenate[Adapted, Given], Result]) -> Callable[Concatenate[Adapted, Given], Result]:
    """Run without gradients, and with the model's weights reordered for as long as the job lasts."""

    @functools.wraps(function)
    def run(adapted: Adapted, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with torch.no_grad(), reordered(adapted.base.model):
            return function(adapted, *args, **kwargs)

    return run


@dataclass(frozen=True)
class Draft:
    """A draft of an answer. All but its last token was computed behind its prompt.

    states: (tokens, hidden) the states that predict its tokens.
    """

    ids: Sequence[int]
    states: Tensor


@dataclass
class Filled:
    """The prompts of one batch, computed: what answering and weighing go on from.

    A row of the cache holds the prefix that all prompts share in its first columns. The rest of its prompt, and what
    was read of a draft, stand in the last of the ``longest`` columns; the columns between are empty. For the prompts
    ``p q a b c`` and ``p q d`` with the prefix ``p q``:

        column   0  1  2  3  4
        row 0    p  q  a  b  c
        row 1    p  q  ·  ·  d

    hidden: (prompts, hidden) the states that predict the next token of an answer.
    rows: (prompts,) the row of the adapter that each uses.
    lengths: (prompts,) tokens.
    samples: answers to each prompt.
    drafts: one of each answer, or none at all.
    begun: of each answer the tokens and log-probabilities that its draft gave, or none at all.
    """

    adapted: Adapted
    cache: Cache
    hidden: Tensor
    rows: LongTensor
    lengths: LongTensor
    prefix: int
    longest: int
    samples: int
    drafts: list[Draft]
    begun: list[tuple[Sequence[int], Sequence[float]]] = field(default_factory=list)

    def visible(self) -> Tensor:
        """(prompts, longest): True on the columns that hold tokens of the prompt, or of its answer as far as known."""
        column = torch.arange(self.longest, device=self.lengths.device)
        end = torch.full_like(self.lengths, self.longest)
        for row, draft in enumerate(self.drafts):
            end[row] -= len(draft.ids) - 1
        known = [min(len(ids), len(draft.ids) - 1) for (ids, _), draft in zip(self.begun, self.drafts, strict=True)]
        start = end - self.lengths + self.prefix
        if known:
            end += torch.tensor(known, device=end.device)
        return (column < self.prefix) | (column >= start[:, None]) & (column < end[:, None])
