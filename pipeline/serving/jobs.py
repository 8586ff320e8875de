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
from pipeline.serving.rows import Way


class Late(UserError):
    """The time of a job was over before its turn came."""


@dataclass(frozen=True)
class Decision:
    """What the first pass decided, and what it cost.

    chosen: the way that was taken, in words.
    weights: what it was chosen by: probabilities of categories, or gates.
    tokens: read in the first pass, beside the prompt itself.
    seconds: of the pass, which several jobs may share.
    """

    chosen: str
    weights: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Answered:
    """A finished answer.

    ended: by the model itself (``stop``), at the limit of tokens, or of time.
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

    messages: chat turns.
    tell: hears the Decision, then pieces of text, then Answered; or an exception, as the last.
    temperature: 0 takes the most likely tokens, above it they are drawn.
    seed: of the draws.
    seconds: after which the answer ends where it is.
    """

    messages: Sequence
    strategy: Strategy
    max_new_tokens: int
    tell: Callable[[Decision | str | Answered | Exception], None]
    temperature: float = 0.0
    seed: int = 0
    seconds: float = float("inf")

    def __post_init__(self) -> None:
        self.cancelled = self.over = False
        self.started = time.monotonic()
        self.prompt: list[int] = []
        self.ids: list[int] = []
        self.way: Way | None = None
        self.decision: Decision | None = None
        self._generator = torch.Generator().manual_seed(self.seed)
        self._told_from = self._read_to = 0

    @property
    def late(self) -> bool:
        return time.monotonic() - self.started > self.seconds

    @property
    def columns(self) -> int:
        """Of the cache, at most."""
        return len(self.prompt) + self.max_new_tokens

    def draw(self) -> Tensor:
        """The random number of the coming token, (1,)."""
        return torch.rand(1, generator=self._generator)

    def add(self, token: int, base: Base) -> None:
        """One more token of the answer: tell what it adds, and the whole answer where it is the last."""
        if not self.ids and self.decision:
            self.tell(self.decision)
        self.ids.append(token)
        ended: Literal["stop", "length", "time"] | None = None
        if token in base.end_ids:
            ended = "stop"
        elif len(self.ids) == self.max_new_tokens:
            ended = "length"
        elif self.late:
            ended = "time"
        if piece := self._piece(base, last=ended is not None):
            self.tell(piece)
        if ended and self.decision:
            seconds = time.monotonic() - self.started
            text = base.text(self.ids)
            self.tell(Answered(text, len(self.ids), len(self.prompt), ended, self.decision, seconds))
        self.over = ended is not None

    def end(self, error: Exception) -> None:
        """End without an answer, and tell why."""
        self.over = True
        self.tell(error)

    def _piece(self, base: Base, last: bool) -> str:
        """The text that the newest token adds: nothing while it ends inside a character."""
        before = base.text(self.ids[self._told_from : self._read_to])
        now = base.text(self.ids[self._told_from :])
        if not last and (len(now) <= len(before) or now.endswith("\ufffd")):
            return ""
        # From here on only the last piece is decoded again: a tokenizer may join a token to the one before it.
        self._told_from, self._read_to = self._read_to, len(self.ids)
        return now[len(before) :]
