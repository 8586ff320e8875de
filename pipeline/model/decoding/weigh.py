"""The log-likelihoods of given continuations of prompts, in one pass behind the prompts' prefill."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import LongTensor, Tensor

from pipeline.model.decoding.batch import Filled, job
from pipeline.model.decoding.prefill import filled_batches
from pipeline.model.decoding.step import forward
from pipeline.model.forward.base import Adapted
from pipeline.model.forward.logprobs import token_logprobs


@job
def weigh(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    rows: Sequence[int] | None = None,
) -> list[list[float]]:
    """The log-likelihood (nats) of each given continuation of each prompt, summed over its tokens.

    rows: the row of the adapter that each prompt uses (default: its own number).
    """
    values: list[list[float]] = [[] for _ in prompts]
    for batch, filled in filled_batches(adapted, prompts, rows=rows, more_columns=0):
        of_batch = _weighed(filled, [continuations[index] for index in batch])
        for index, of_prompt in zip(batch, of_batch, strict=True):
            values[index] = of_prompt
    return values


def _weighed(filled: Filled, continuations: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
    """Log-likelihoods (nats) of the continuations of each prompt of a batch. The cache is read, not changed."""
    lengths = filled.lengths.tolist()
    values = [[0.0] * len(several) for several in continuations]
    read = [_read(several) for several in continuations]
    order = sorted(range(len(continuations)), key=lambda row: -read[row])
    start = 0
    while start < len(order):
        width = max(1, read[order[start]])
        part = order[start : start + max(1, filled.adapted.compute.batch_tokens // width)]
        start += len(part)
        layout = _Layout.of([continuations[row] for row in part], [lengths[row] for row in part], width)
        for (place, number), value in zip(layout.owner, _logprobs(filled, part, layout), strict=True):
            values[part[place]][number] += value
    return values


def _read(continuations: Sequence[Sequence[int]]) -> int:
    """Tokens that are read of one prompt's continuations: the last one of each is predicted, never read."""
    return sum(len(continuation) - 1 for continuation in continuations)


@dataclass
class _Layout:
    """Where the continuations of several prompts stand in one pass, those of a prompt side by side in one row.

    Each sees its prompt and itself. A prompt of 5 tokens with the continuations ``a b`` and ``a c d`` is the row

        column     0  1  2
        ids        a  a  c
        positions  5  5  6
        segment    0  1  1        b and d are predicted, not read

    and its five targets come from these states (P is the prompt's own last state, which stands before all columns'):

        target     a  b  a  c  d
        source     P  0  P  1  2
        owner      0  0  1  1  1

    ids, positions, segment: (prompts, width); segment is the continuation's number, −1 on padding.
    source: which of the states predicts each target: first those of the prompts, then those of the pass, row by row.
    owner: the place and continuation that each target belongs to.
    """

    ids: LongTensor
    positions: LongTensor
    segment: LongTensor
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    owner: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, continuations: Sequence[Sequence[Sequence[int]]], lengths: Sequence[int], width: int) -> "_Layout":
        """lengths: tokens of each prompt. width: columns of the pass."""
        shape = len(continuations), width
        layout = cls(*(torch.full(shape, value, dtype=torch.long) for value in (0, 0, -1)))
        for place, (several, length) in enumerate(zip(continuations, lengths, strict=True)):
            at = 0
            for number, continuation in enumerate(several):
                read = len(continuation) - 1
                columns = slice(at, at + read)
                layout.ids[place, columns] = torch.tensor(continuation[:-1], dtype=torch.long)
                layout.positions[place, columns] = torch.arange(length, length + read)
                layout.segment[place, columns] = number
                behind = len(continuations) + place * width + at
                layout.source += [place, *range(behind, behind + read)]
                layout.target += continuation
                layout.owner += [(place, number)] * len(continuation)
                at += read
        return layout

    def mask(self) -> Tensor:
        """(prompts, width, width): True where a token sees another of its own continuation."""
        causal = torch.ones(self.ids.shape[1], self.ids.shape[1], dtype=torch.bool).tril()
        return (self.segment[:, :, None] == self.segment[:, None, :]) & causal


def _logprobs(filled: Filled, part: Sequence[int], layout: _Layout) -> list[float]:
    """The log-probability (nats) of each target of a layout. part: the rows of the cache that its prompts stand in."""
    base, device = filled.adapted.base, filled.adapted.base.device
    rows = torch.tensor(part, device=device)
    prompt = filled.visible()[rows][:, None].expand(-1, layout.ids.shape[1], -1)
    mask = torch.cat([prompt, layout.mask().to(device)], 2)

    def place(kept: Tensor, new: Tensor) -> Tensor:
        return torch.cat([kept[rows.to(kept.device), :, : filled.longest], new.to(kept.dtype)], 2)

    filled.adapted.attachment.begin(filled.rows[rows], None)
    hidden = forward(
        base,
        filled.cache,
        place,
        ids=layout.ids.to(device),
        positions=layout.positions.to(device),
        mask=mask[:, None],
    )
    states = torch.cat([filled.hidden[rows], hidden.flatten(0, 1)])[torch.tensor(layout.source, device=device)]
    target = torch.tensor(layout.target, device=device)
    return token_logprobs(states, base.lm_head, target)[0].tolist()
