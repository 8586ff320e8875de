"""Prompts become a batch whose next tokens can be written or weighed: they are computed into a cache."""

from collections.abc import Iterator, Sequence

import torch
from torch import LongTensor, Tensor

from pipeline.model.decoding.batch import Draft, Filled, forward
from pipeline.model.decoding.cache import Cache
from pipeline.model.forward.base import Adapted
from pipeline.model.forward.prefixes import Beginnings, common_beginnings


def filled_batches(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    *,
    rows: Sequence[int] | None,
    more_columns: int,
    samples: int = 1,
    drafts: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[list[int], Filled]]:
    """Prefill the prompts, longest first, as many at a time as the cache holds; yields their numbers and the batch."""
    rows = range(len(prompts)) if rows is None else rows
    # a draft's last token is predicted, never read
    whole = [[*prompt, *drafts[index][:-1]] if drafts else prompt for index, prompt in enumerate(prompts)]
    order = sorted(range(len(prompts)), key=lambda index: (-len(whole[index]), index))
    while order:
        columns = len(whole[order[0]]) + more_columns
        size = max(1, adapted.compute.cache_tokens // (columns * samples))
        batch, order = order[:size], order[size:]
        yield (
            batch,
            _prefill(
                adapted,
                [whole[index] for index in batch],
                rows=torch.tensor([rows[index] for index in batch], device=adapted.base.device),
                more_columns=more_columns,
                samples=samples,
                drafts=[drafts[index] for index in batch] if drafts else [],
            ),
        )


def _prefill(
    adapted: Adapted,
    whole: Sequence[Sequence[int]],
    *,
    rows: LongTensor,
    more_columns: int,
    samples: int,
    drafts: Sequence[Sequence[int]],
) -> Filled:
    """Compute the prompts, longest first, into a new cache with room for ``more_columns`` tokens of an answer.

    whole: the prompts with what is read of the drafts, if there are any, behind them.
    """
    base, attachment, batch_tokens = adapted.base, adapted.attachment, adapted.compute.batch_tokens
    longest, device = len(whole[0]), base.device
    dtype = torch.float32 if device.type == "cpu" else base.model.dtype
    cache = Cache(len(whole), longest + more_columns, dtype, device, room=len(whole) * samples)
    read_of_draft = [len(draft) - 1 for draft in drafts] or [0] * len(whole)
    prompts = [ids[: len(ids) - more] for ids, more in zip(whole, read_of_draft, strict=True)]
    common = common_beginnings(prompts, attachment.alike(rows), keep=attachment.tail)
    prefix = common.length
    if prefix:
        _prefill_beginnings(
            adapted,
            prompts,
            cache,
            common,
            rows=rows,
        )
    last, drafted = [], []
    start = 0
    while start < len(whole):
        width = len(whole[start]) - prefix
        end = min(len(whole), start + max(1, batch_tokens // width))
        part = [ids[prefix:] for ids in whole[start:end]]
        ids = torch.tensor([[0] * (width - len(rest)) + list(rest) for rest in part], device=device)
        real = torch.tensor([[False] * (width - len(rest)) + [True] * len(rest) for rest in part], device=device)
        more = torch.tensor(read_of_draft[start:end], device=device)[:, None]
        asked = real & (torch.arange(width, device=device) < width - more)
        positions = prefix + (real.cumsum(1) - 1).clamp_(min=0)
        causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        # Padding sees padding: a row of the softmax without any key would be undefined.
        mask = (real[:, None, :] == real[:, :, None]) & causal
        mask = torch.cat([mask.new_ones(len(part), width, prefix), mask], 2)
        own, columns = slice(start, end), slice(longest - width, longest)

        def write(kept: Tensor, new: Tensor, own: slice = own, columns: slice = columns) -> None:
            kept[own, :, columns] = new.to(kept.dtype)

        def read(kept: Tensor, new: Tensor, own: slice = own) -> Tensor:
            return torch.cat([kept[own, :, :prefix].to(new.dtype), new], 2) if prefix else new

        attachment.begin_part(rows[start:end], asked, before=prefix, after=0)
        with cache.several_tokens(write=write, read=read):
            hidden = forward(base, cache, ids, positions, mask[:, None])
        last.append(hidden[:, -1])
        for draft, states in zip(drafts[start:end], hidden, strict=False):
            drafted.append(Draft(draft, states[-len(draft) :].clone()))
        start = end
    cache.used = longest
    return Filled(
        adapted,
        cache,
        torch.cat(last),
        rows,
        torch.tensor([len(prompt) for prompt in prompts], device=device),
        prefix,
        longest,
        samples,
        drafts=drafted,
    )


def _prefill_beginnings(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    cache: Cache,
    common: Beginnings,
    *,
    rows: LongTensor,
) -> None:
    """Compute what prompts begin with in common once; all of them get the result."""
    base, attachment, prefix = adapted.base, adapted.attachment, common.length
    size = max(1, adapted.compute.batch_tokens // prefix)
    for start in range(0, len(common.groups), size):
        part = common.groups[start : start + size]
        heads = [group[0] for group in part]
        source = torch.tensor([number for number, group in enumerate(part) for _ in group], device=base.device)
        target = torch.tensor([place for group in part for place in group], device=base.device)

        def write(kept: Tensor, new: Tensor, source: Tensor = source, target: Tensor = target) -> None:
            kept[target, :, :prefix] = new.to(kept.dtype)[source]

        ids = torch.tensor([list(prompts[head][:prefix]) for head in heads], device=base.device)
        causal = torch.ones(prefix, prefix, dtype=torch.bool, device=base.device).tril()
        positions = torch.arange(prefix, device=base.device).expand(len(heads), -1)
        everywhere = torch.ones_like(ids, dtype=torch.bool)
        attachment.begin_part(rows[heads], everywhere, before=0, after=attachment.tail)
        with cache.several_tokens(write=write):
            forward(base, cache, ids, positions, causal.expand(len(heads), 1, -1, -1))
