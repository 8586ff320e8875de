"""Prompts become a batch whose next tokens can be written or weighed: they are computed into a cache."""

from collections.abc import Iterator, Sequence

import torch
from torch import LongTensor, Tensor

from pipeline.model.decoding.batch import Draft, Filled
from pipeline.model.decoding.cache import Cache
from pipeline.model.decoding.step import forward
from pipeline.model.forward.base import Adapted
from pipeline.model.forward.prefixes import Prefixes, common_prefixes


def filled_batches(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    *,
    rows: Sequence[int] | None,
    more_columns: int,
    samples: int = 1,
    drafts: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[list[int], Filled]]:
    """Prefill the prompts, longest first, as many at a time as the cache holds; yields their numbers and the batch.

    rows: the row of the adapter that each prompt uses (default: its own number).
    more_columns: tokens of an answer to leave room for.
    drafts: of the answers; each stands behind its prompt, all but the last token, which is predicted and never read.
    """
    rows = range(len(prompts)) if rows is None else rows
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
    """Compute prompts, longest first, into a new cache.

    whole: the prompts, each with what is read of its draft behind it.
    """
    cache = Cache(adapted.base.model, len(whole), len(whole[0]) + more_columns, room=len(whole) * samples)
    cache.used = len(whole[0])
    of_draft = [len(draft) - 1 for draft in drafts] or [0] * len(whole)
    prompts = [ids[: len(ids) - read] for ids, read in zip(whole, of_draft, strict=True)]
    shared = common_prefixes(prompts, adapted.attachment.alike(rows), keep=adapted.attachment.tail)
    if shared.length:
        _prefill_prefixes(adapted, cache, prompts, shared, rows=rows)
    hidden, computed = [], []
    start = 0
    while start < len(whole):
        width = len(whole[start]) - shared.length
        part = slice(start, min(len(whole), start + max(1, adapted.compute.batch_tokens // width)))
        states = _prefill_rests(
            adapted, cache, whole[part], part, prefix=shared.length, of_draft=of_draft[part], rows=rows[part]
        )
        hidden.append(states[:, -1])
        computed += [
            Draft(draft, of_row[-len(draft) :].clone()) for draft, of_row in zip(drafts[part], states, strict=False)
        ]
        start = part.stop
    return Filled(
        adapted,
        cache,
        hidden=torch.cat(hidden),
        rows=rows,
        lengths=torch.tensor([len(prompt) for prompt in prompts], device=adapted.base.device),
        prefix=shared.length,
        longest=cache.used,
        samples=samples,
        drafts=computed,
    )


def _prefill_rests(
    adapted: Adapted,
    cache: Cache,
    whole: Sequence[Sequence[int]],
    own: slice,
    *,
    prefix: int,
    of_draft: Sequence[int],
    rows: LongTensor,
) -> Tensor:
    """Compute what follows the prefix, of some rows, longest first; returns the states, (rows, tokens, hidden).

    own: the rows of the cache. of_draft: how many of each row's last tokens belong to a draft. Rests are padded on the
    left, so that the last token of each stands in the last column: for the rests ``a b c`` and ``d``

        ids        a  b  c        positions  0  1  2        mask   a sees a; b sees a, b; c sees a, b, c
                   0  0  d                   0  0  0               d sees d alone; padding sees padding

    with the length of the prefix added to the positions, and its columns visible to all.
    """
    device, width = adapted.base.device, len(whole[0]) - prefix
    rests = [ids[prefix:] for ids in whole]
    ids = torch.tensor([[0] * (width - len(rest)) + list(rest) for rest in rests], device=device)
    real = torch.tensor([[False] * (width - len(rest)) + [True] * len(rest) for rest in rests], device=device)
    read = torch.tensor(of_draft, device=device)[:, None]
    of_prompt = real & (torch.arange(width, device=device) < width - read)
    positions = prefix + (real.cumsum(1) - 1).clamp_(min=0)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    # Padding sees padding: a row of the softmax without any key would be undefined.
    mask = (real[:, None, :] == real[:, :, None]) & causal
    mask = torch.cat([mask.new_ones(len(rests), width, prefix), mask], 2)
    columns = slice(cache.used - width, cache.used)

    def place(kept: Tensor, new: Tensor) -> Tensor:
        kept[own, :, columns] = new.to(kept.dtype)
        return torch.cat([kept[own, :, :prefix].to(new.dtype), new], 2) if prefix else new

    adapted.attachment.begin_part(rows, of_prompt, before=prefix, after=0)
    return forward(adapted.base, cache, place, ids=ids, positions=positions, mask=mask[:, None])


def _prefill_prefixes(
    adapted: Adapted, cache: Cache, prompts: Sequence[Sequence[int]], shared: Prefixes, *, rows: LongTensor
) -> None:
    """Compute each shared prefix once; the rows of all prompts that begin with it get the result."""
    base, attachment, length = adapted.base, adapted.attachment, shared.length
    size = max(1, adapted.compute.batch_tokens // length)
    causal = torch.ones(length, length, dtype=torch.bool, device=base.device).tril()
    for start in range(0, len(shared.groups), size):
        part = shared.groups[start : start + size]
        first = [group[0] for group in part]
        source = torch.tensor([number for number, group in enumerate(part) for _ in group], device=base.device)
        target = torch.tensor([row for group in part for row in group], device=base.device)

        def place(kept: Tensor, new: Tensor, source: Tensor = source, target: Tensor = target) -> Tensor:
            kept[target.to(kept.device), :, :length] = new.to(kept.dtype)[source.to(new.device)]
            return new

        ids = torch.tensor([list(prompts[row][:length]) for row in first], device=base.device)
        attachment.begin_part(rows[first], torch.ones_like(ids, dtype=torch.bool), before=0, after=attachment.tail)
        forward(
            base,
            cache,
            place,
            ids=ids,
            positions=torch.arange(length, device=base.device).expand(len(first), -1),
            mask=causal.expand(len(first), 1, -1, -1),
        )
