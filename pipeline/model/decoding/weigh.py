"""The log-likelihoods of given answers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.model.decoding.batch import Filled, forward, job
from pipeline.model.decoding.prefill import filled_batches
from pipeline.model.forward.base import Adapted
from pipeline.model.forward.logprobs import head_weight, token_logprobs


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
    found: list[list[float]] = [[] for _ in prompts]
    for batch, filled in filled_batches(adapted, prompts, rows=rows, more_columns=0):
        for index, values in zip(batch, _weigh(filled, [continuations[index] for index in batch]), strict=True):
            found[index] = values
    return found


def _weigh(filled: Filled, continuations: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
    """Log-likelihoods (nats) of several continuations of each prompt. The cache is read, not changed.

    Those of one prompt lie in one row behind it; each sees the prompt and itself (as in ``core.packing``). The last
    token of a continuation is predicted, never read.
    """
    base, device = filled.adapted.base, filled.adapted.base.device
    visible, lengths = filled.visible(), filled.lengths.tolist()
    order = sorted(range(len(continuations)), key=lambda row: -sum(len(c) - 1 for c in continuations[row]))
    found = [[0.0] * len(several) for several in continuations]
    start = 0
    while start < len(order):
        width = max(1, sum(len(c) - 1 for c in continuations[order[start]]))
        part = order[start : start + max(1, filled.adapted.compute.batch_tokens // width)]
        start += len(part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        positions = torch.zeros(len(part), width, dtype=torch.long)
        segment = torch.full((len(part), width), -1, dtype=torch.long)
        source, target, owner = [], [], []
        for place, row in enumerate(part):
            at = 0
            for number, continuation in enumerate(continuations[row]):
                read = len(continuation) - 1
                ids[place, at : at + read] = torch.tensor(continuation[:-1], dtype=torch.long)
                positions[place, at : at + read] = torch.arange(lengths[row], lengths[row] + read)
                segment[place, at : at + read] = number
                # the prompt's own state predicts the first token; those of this pass stand behind all prompts' states
                source += [place, *range(len(part) + place * width + at, len(part) + place * width + at + read)]
                target += list(continuation)
                owner += [(row, number)] * len(continuation)
                at += read
        rows = torch.tensor(part, device=device)
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        own = ((segment[:, :, None] == segment[:, None, :]) & causal).to(device)
        mask = torch.cat([visible[rows][:, None].expand(-1, width, -1), own], 2)

        def read_behind(kept: Tensor, new: Tensor, rows: Tensor = rows) -> Tensor:
            prompts = kept[rows, :, : filled.longest]
            return torch.cat([prompts, new.to(prompts.dtype)], 2)

        filled.adapted.attachment.begin(filled.rows[rows], None)
        with filled.cache.several_tokens(read=read_behind):
            hidden = forward(base, filled.cache, ids.to(device), positions.to(device), mask[:, None])
        states = torch.cat([filled.hidden[rows], hidden.flatten(0, 1)])[torch.tensor(source, device=device)]
        logprobs, _ = token_logprobs(states, head_weight(base.model), torch.tensor(target, device=device))
        for (row, number), value in zip(owner, logprobs.tolist(), strict=True):
            found[row][number] += value
    return found
