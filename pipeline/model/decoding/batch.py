"""What a decoding job is made of: its answers, its drafts, and a batch of prompts that has been computed."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import LongTensor, Tensor

from pipeline.core.config import Section
from pipeline.model.decoding.cache import Cache
from pipeline.model.forward.base import Adapted, Base, decoder
from pipeline.model.forward.linear import reordered


class Decoding(Section, at="tasks.{task}.decoding"):
    """How long an answer to a task may be, in tokens."""

    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """Generated ids (the end-of-sequence token included), their log-probabilities (nats), whether it ended itself.

    probability: where this is no sample but one of all answers there can be, the share of it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    probability: float | None = None


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
    """A draft of an answer, all but its last token computed behind its prompt. states: (tokens, hidden), each predicts
    one of its tokens."""

    ids: Sequence[int]
    states: Tensor


@dataclass
class Filled:
    """The prompts of one batch, computed: what answering goes on from.

    hidden: (prompts, hidden) the states that predict the next token of an answer. rows: (prompts,) of the adapter.
    lengths: (prompts,) tokens. prefix: tokens that all of them begin with. longest: the columns used of the cache.
    drafts: of answers, or empty. begun: tokens and log-probabilities of each answer that are known already, or empty.
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


def forward(base: Base, cache: Cache, ids: LongTensor, positions: LongTensor, mask: Tensor) -> Tensor:
    """The final hidden states, (rows, tokens, hidden)."""
    return decoder(base.model)(
        input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state
