"""What the engine is asked, and what it answers.

A *job* is one prompt to be answered. Whoever submits it hears, in the engine's thread, what was decided, then the
answer piece by piece, then what it came to.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.model.forward.base import Base
from pipeline.serving.choosing import Options, Weighed
from pipeline.serving.rows import Way
from pipeline.serving.text import Text


class Late(UserError):
    """The time of a job was over before its turn came."""


@dataclass(frozen=True)
class Decision:
    """What the first pass decided, and what it cost.

    chosen: the way that was taken, in words.
    weights: what it was chosen by: probabilities of categories, or gates.
    tokens: read in the first pass, beside the prompt itself.
    seconds: of the pass, which several jobs may share.
    form: the task in whose form the question is asked; empty: in none.
    """

    chosen: str
    weights: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    form: str = ""


@dataclass(frozen=True)
class Answered:
    """A finished answer.

    ended: by the model itself or a stop of the options (``stop``), at the limit of tokens, or of time.
    seconds: since the job was made.
    """

    text: str
    tokens: int
    prompt_tokens: int
    ended: Literal["stop", "length", "time"]
    decision: Decision
    seconds: float


# A strategy: a way that is known beforehand, or a first pass over the model (nothing attached) that finds one for each
# of several chats.
FirstPass = Callable[[Base, Sequence[Sequence]], list[tuple[Way, Decision]]]
Strategy = Way | FirstPass


@dataclass(eq=False)
class Job:
    """One prompt to be answered.

    messages: chat turns, which a first pass reads.
    options: how the answer is written.
    tell: hears the Decision, then pieces of text, then Answered; or an exception, as the last. Where the options ask
        for log-probabilities, it hears of every token before the piece that the token belongs to.
    prompt: the tokens that are answered; none: those of the messages.
    plain: the prompt stands as it is, whatever form the adapter was trained in.
    shrinks: the answer may have fewer tokens than the options say, where no more fit behind the prompt.
    seconds: after which the answer ends where it is.
    """

    messages: Sequence
    strategy: Strategy
    options: Options
    tell: Callable[[Decision | Weighed | str | Answered | Exception], None]
    prompt: list[int] = field(default_factory=list)
    plain: bool = False
    shrinks: bool = False
    seconds: float = float("inf")

    def __post_init__(self) -> None:
        self.cancelled = self.over = False
        self.started = time.monotonic()
        self.ids: list[int] = []
        self.way: Way | None = None
        self.decision: Decision | None = None
        self.echoed: list[Weighed] = []
        self._generator = torch.Generator().manual_seed(self.options.seed)
        self._text: Text | None = None

    @property
    def late(self) -> bool:
        return time.monotonic() - self.started > self.seconds

    @property
    def columns(self) -> int:
        """Of the cache, at most."""
        return len(self.prompt) + self.options.max_new_tokens

    def draw(self) -> Tensor:
        """The random number of the coming token, (1,)."""
        return torch.rand(1, generator=self._generator)

    def add(self, token: int, base: Base, weighed: Weighed | None = None) -> None:
        """One more token of the answer: tell what it adds, and the whole answer where it is the last."""
        if self._text is None:
            self._begin(base)
        assert self._text
        self.ids.append(token)
        if weighed:
            self.tell(weighed)
        ended: Literal["stop", "length", "time"] | None = None
        if token in base.end_ids:
            ended = "stop"
        elif len(self.ids) == self.options.max_new_tokens:
            ended = "length"
        elif self.late:
            ended = "time"
        if piece := self._text.add(token, last=ended is not None):
            self.tell(piece)
        if self._text.stopped:
            ended = "stop"
        if ended and self.decision:
            seconds = time.monotonic() - self.started
            text = self._text.told if self.options.stop else base.text(self.ids)
            self.tell(Answered(text, len(self.ids), len(self.prompt), ended, self.decision, seconds))
        self.over = ended is not None

    def _begin(self, base: Base) -> None:
        """Tell what was decided, and the tokens of the prompt where they are asked for."""
        self._text = Text(base, self.options.stop)
        for news in (self.decision, *self.echoed):
            if news:
                self.tell(news)

    def end(self, error: Exception) -> None:
        """End without an answer, and tell why."""
        self.over = True
        self.tell(error)
