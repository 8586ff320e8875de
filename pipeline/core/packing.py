"""Prompts and several answers to each, computed with nothing computed twice, and with gradients.

A group is a prompt and answers to it. Up to three passes compute a batch of groups, each looking back at keys and
values of the one before, through which the gradient flows:

1. what prompts begin with in common (``core.beginnings``), a row each;
2. the rest of each prompt with its first answer behind it, a row a group;
3. the other answers, a row each, behind their prompts.

Answers see their prompt and themselves, never another answer, so that every log-probability equals that of the answer
alone. The last token of an answer is predicted, never read. With four samples of 20 tokens behind 60 tokens of prompt,
40 of them common to a whole batch, this is 96 tokens of work a prompt instead of 320.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import BoolTensor, LongTensor, Tensor

from pipeline.core.adapters import Attachment
from pipeline.core.beginnings import common_beginnings
from pipeline.core.cache import Past


@dataclass(frozen=True)
class Group:
    """A prompt, its answers, and the row of an attached adapter (see ``Attachment.begin``) it is computed with."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    row: int = 0


@dataclass(frozen=True)
class Rows:
    """The tokens of one pass, padded on the right to ``seq``.

    ids, positions: (batch, seq). mask: (batch, 1, seq, looked back + seq), True where a token may look.
    back: (batch,) the row of the pass before that each looks back at. numbers: (batch,) of the adapter's rows.
    """

    ids: LongTensor
    positions: LongTensor
    mask: BoolTensor
    back: LongTensor
    numbers: LongTensor


@dataclass(frozen=True)
class Packed:
    """A batch of groups as passes; see the module.

    beginnings: the first pass, or None where nothing is shared. rests: the second. prompt_mask: (groups, seq), True on
    its tokens of prompts. others: the third, or None where every group has one answer. shared: tokens of a beginning.
    For each of the N answer tokens of the batch, group by group, answer by answer:
    source: (N,) index into the flattened hidden states of the second and the third pass of the one that predicts it;
    target: (N,) its id; answer: (N,) which answer of the batch it belongs to.
    """

    beginnings: Rows | None
    rests: Rows
    prompt_mask: BoolTensor
    others: Rows | None
    shared: int
    source: LongTensor
    target: LongTensor
    answer: LongTensor
    answers: int


def _padded(rows: Sequence[Sequence[int]], starts: Sequence[int]) -> tuple[LongTensor, LongTensor, BoolTensor]:
    """ids, positions, counted from each row's start, and where there are tokens, all (rows, longest)."""
    longest = max(1, *map(len, rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    there = torch.zeros((len(rows), longest), dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        there[place, : len(row)] = True
    return ids, torch.tensor(starts)[:, None] + torch.arange(longest), there


def _mask(before: BoolTensor, there: BoolTensor) -> BoolTensor:
    """Every token sees ``before`` (rows, looked back), and in its own pass itself and what is before it.

    Padding sees padding: a row of the softmax without any key would be undefined.
    """
    length = there.shape[1]
    own = (there[:, :, None] == there[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.cat([before[:, None].expand(-1, length, -1), own], 2)[:, None]


def pack(groups: Sequence[Group], *, device: torch.device, shared: int = 0, heads: Sequence[int] = ()) -> Packed:
    """Lay out groups.

    shared: tokens that prompts begin with in common; heads: a number for each group, the same where they do.
    """
    places: dict[int, int] = {}  # number of a beginning to its place among those of this batch
    head = [places.setdefault(number, len(places)) for number in heads]
    beginnings = None
    if shared:
        leaders = [groups[head.index(place)] for place in range(len(places))]
        ids, positions, there = _padded([group.prompt[:shared] for group in leaders], [0] * len(leaders))
        beginnings = _rows(ids, positions, _mask(there[:, :0], there), [0] * len(leaders), leaders, device)

    first = [[*group.prompt[shared:], *group.answers[0][:-1]] for group in groups]
    ids, positions, there = _padded(first, [shared] * len(groups))
    sizes = torch.tensor([len(group.prompt) - shared for group in groups])
    prompt_mask = torch.arange(ids.shape[1]) < sizes[:, None]
    everything = torch.ones(len(groups), shared, dtype=torch.bool)
    rests = _rows(ids, positions, _mask(everything, there), head or [0] * len(groups), groups, device)

    owners = [place for place, group in enumerate(groups) for _ in group.answers[1:]]
    others = None
    if owners:
        more = [answer[:-1] for group in groups for answer in group.answers[1:]]
        more_ids, more_positions, there = _padded(more, [len(groups[owner].prompt) for owner in owners])
        before = torch.cat([everything, prompt_mask], 1)[owners]
        mask = _mask(before, there)
        others = _rows(more_ids, more_positions, mask, owners, [groups[owner] for owner in owners], device)

    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    answers, width, behind = 0, ids.shape[1], ids.numel()
    for place, group in enumerate(groups):
        last = place * width + len(group.prompt) - shared - 1  # predicts the first token of every answer
        for number, tokens in enumerate(group.answers):
            start = last + 1 if number == 0 else behind
            source += [last, *range(start, start + len(tokens) - 1)][: len(tokens)]
            target += list(tokens)
            owner += [answers] * len(tokens)
            answers += 1
            if number:
                behind += more_ids.shape[1]
    return Packed(
        beginnings=beginnings,
        rests=rests,
        prompt_mask=prompt_mask.to(device),
        others=others,
        shared=shared,
        source=torch.tensor(source, dtype=torch.long, device=device),
        target=torch.tensor(target, dtype=torch.long, device=device),
        answer=torch.tensor(owner, dtype=torch.long, device=device),
        answers=answers,
    )


def _rows(
    ids: LongTensor,
    positions: LongTensor,
    mask: BoolTensor,
    back: Sequence[int],
    groups: Sequence[Group],
    device: torch.device,
) -> Rows:
    numbers = torch.tensor([group.row for group in groups], device=device)
    return Rows(ids.to(device), positions.to(device), mask.to(device), torch.tensor(back, device=device), numbers)


def packed_batches(
    groups: Sequence[Group], attachment: Attachment, *, batch_tokens: int, device: torch.device
) -> Iterator[tuple[list[int], Packed]]:
    """The groups as batches of at most ``batch_tokens`` (padding included, beginnings not), with their indices."""
    alike = attachment.alike(torch.tensor([group.row for group in groups], device=device))
    found = common_beginnings([group.prompt for group in groups], alike, keep=attachment.tail)
    heads = {place: number for number, places in enumerate(found.groups) for place in places}
    for batch in token_batches(groups, found.length, batch_tokens):
        chosen = [groups[index] for index in batch]
        numbers = [heads[index] for index in batch] if heads else []
        yield batch, pack(chosen, device=device, shared=found.length, heads=numbers)


def token_batches(groups: Sequence[Group], shared: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of groups, similar sizes together: at most ``batch_tokens`` a batch, with the padding of both passes.

    A group longer than the budget is a batch of its own.
    """

    def shape(index: int) -> tuple[int, int, int]:
        """The width of its row, how many other answers there are, and the longest of them."""
        group = groups[index]
        lengths = [len(answer) - 1 for answer in group.answers]
        return len(group.prompt) - shared + lengths[0], len(lengths) - 1, max([0, *lengths[1:]])

    def tokens(batch: Sequence[int]) -> int:
        widths, counts, longest = zip(*map(shape, batch), strict=True)
        return len(batch) * max(widths) + sum(counts) * max(longest)

    batch: list[int] = []
    for index in sorted(range(len(groups)), key=lambda index: (-tokens([index]), index)):
        if batch and tokens([*batch, index]) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def answer_hidden(decoder: torch.nn.Module, packed: Packed, attachment: Attachment) -> Tensor:
    """The final hidden states that predict the answers' tokens, (N, hidden)."""
    past = Past() if packed.beginnings is not None or packed.others is not None else None

    def compute(rows: Rows) -> Tensor:
        return decoder(
            input_ids=rows.ids,
            position_ids=rows.positions,
            attention_mask=rows.mask,
            past_key_values=past,
            use_cache=past is not None,
        ).last_hidden_state.flatten(0, 1)

    if past is not None and packed.beginnings is not None:
        everywhere = torch.ones_like(packed.beginnings.ids, dtype=torch.bool)
        attachment.begin_part(packed.beginnings.numbers, everywhere, before=0, after=attachment.tail)
        compute(packed.beginnings)
        past.branch(packed.rests.back)
    attachment.begin_part(packed.rests.numbers, packed.prompt_mask, before=packed.shared, after=0)
    hidden = compute(packed.rests)
    if past is not None and packed.others is not None:
        past.branch(packed.others.back)
        attachment.begin(packed.others.numbers, None)
        hidden = torch.cat([hidden, compute(packed.others)])
    return hidden.index_select(0, packed.source)
