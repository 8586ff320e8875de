"""Prompts and several answers to each, computed with nothing computed twice, and with gradients.

A group is a prompt and answers to it. Up to three passes compute a batch of groups, each looking back at keys and
values of the one before, through which the gradient flows:

1. what prompts begin with in common (``core.beginnings``), a row each;
2. the rest of each prompt with answers behind it, a row a group;
3. the other answers, in rows behind their prompts.

Answers see their prompt and themselves, never another answer, so that every log-probability equals that of the answer
alone, whichever row it stands in. Samples end raggedly; several share a row where that costs less than padding each to
the longest (``lay_out``). The last token of an answer is predicted, never read. With four samples of 20 tokens behind
60 tokens of prompt, 40 of them common to a whole batch, this is 96 tokens of work a prompt instead of 320.
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
    its tokens of prompts. others: the third, or None where no answer is left for it. shared: tokens of a beginning.
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


@dataclass(frozen=True)
class Layout:
    """Which answers stand in which row. Numbers of answers are their places in the group's ``answers``.

    first: per group, those behind the rest of its prompt. others: the rows of the third pass, (group, answers) each.
    tokens: of both passes, padding included. cost: in tokens that look at nothing, see ``lay_out``.
    """

    first: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, tuple[int, ...]], ...]
    tokens: int
    cost: float


KEYS = 128  # looked at by a token cost about as much as its products with the weights (SmolLM2-135M on a CPU)


def lay_out(groups: Sequence[Group], shared: int) -> Layout:
    """The cheapest of a few layouts: rows for one or two of the longest answers, filled with as many as fit.

    Few wide rows pad less than many narrow ones, yet each token looks past more that it does not see.
    """
    rest = max(len(group.prompt) for group in groups) - shared
    longest = max(len(answer) for group in groups for answer in group.answers) - 1
    widths = (1, 2) if any(len(group.answers) > 1 for group in groups) else (1,)
    layouts = [_filled(groups, shared, rest + a * longest, b * longest) for a in widths for b in widths]
    return min(layouts, key=lambda layout: layout.cost)


def _filled(groups: Sequence[Group], shared: int, width: int, other_width: int) -> Layout:
    """Rows of at most these widths, the longest answers placed first, each into the first row with room."""
    first, others, used, used_others = [], [], [], [0]
    for place, group in enumerate(groups):
        rest = len(group.prompt) - shared
        lengths = [len(answer) - 1 for answer in group.answers]
        rows: list[list[int]] = [[]]
        rooms = [width - rest]
        for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
            row = next((row for row, room in enumerate(rooms) if lengths[number] <= room), len(rooms))
            if row == len(rooms):
                rows.append([])
                rooms.append(other_width)
            rows[row].append(number)
            rooms[row] -= lengths[number]
        first.append(tuple(rows[0]))
        others += [(place, tuple(row)) for row in rows[1:]]
        used.append(width - rooms[0])
        used_others += [other_width - room for room in rooms[1:]]
    tokens, other_tokens = len(groups) * max(used), len(others) * max(used_others)
    prompt = max(len(group.prompt) for group in groups)
    cost = tokens * (1 + (shared + max(used)) / KEYS) + other_tokens * (1 + (prompt + max(used_others)) / KEYS)
    return Layout(tuple(first), tuple(others), tokens + other_tokens, cost)


@dataclass(frozen=True)
class _Segment:
    """Tokens of one row that see each other, and the prompt's where it stands in the row. start: their position."""

    ids: Sequence[int]
    start: int
    prompt: bool = False


def _padded(rows: Sequence[Sequence[_Segment]]) -> tuple[LongTensor, LongTensor, LongTensor]:
    """ids, positions and the segment of each token, (rows, longest) all: 0 a prompt, from 1 answers, −1 padding."""
    longest = max(1, *(sum(len(segment.ids) for segment in row) for row in rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    owners = torch.full((len(rows), longest), -1, dtype=torch.long)
    for place, row in enumerate(rows):
        end = 0
        for number, segment in enumerate(row, start=1):
            here = slice(end, end + len(segment.ids))
            ids[place, here] = torch.tensor(segment.ids, dtype=torch.long)
            positions[place, here] = torch.arange(segment.start, segment.start + len(segment.ids))
            owners[place, here] = 0 if segment.prompt else number
            end += len(segment.ids)
    return ids, positions, owners


def _mask(before: BoolTensor, owners: LongTensor) -> BoolTensor:
    """Every token sees ``before`` (rows, looked back), and in its own pass what is before it in its segment, itself,
    and a prompt. owners: see ``_padded``.

    Padding sees padding: a row of the softmax without any key would be undefined.
    """
    length = owners.shape[1]
    query, key = owners[:, :, None], owners[:, None, :]
    own = ((query == key) | ((key == 0) & (query > 0))) & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.cat([before[:, None].expand(-1, length, -1), own], 2)[:, None]


def pack(groups: Sequence[Group], *, device: torch.device, shared: int = 0, heads: Sequence[int] = ()) -> Packed:
    """Lay out groups.

    shared: tokens that prompts begin with in common; heads: a number for each group, the same where they do.
    """
    layout = lay_out(groups, shared)
    places: dict[int, int] = {}  # number of a beginning to its place among those of this batch
    head = [places.setdefault(number, len(places)) for number in heads]
    beginnings = None
    if shared:
        leaders = [groups[head.index(place)] for place in range(len(places))]
        ids, positions, owners = _padded([[_Segment(group.prompt[:shared], 0, prompt=True)] for group in leaders])
        beginnings = _rows(ids, positions, _mask(owners[:, :0] == 0, owners), [0] * len(leaders), leaders, device)

    def answers_of(group: Group, numbers: Sequence[int]) -> list[_Segment]:
        return [_Segment(group.answers[number][:-1], len(group.prompt)) for number in numbers]

    ids, positions, owners = _padded(
        [
            [_Segment(group.prompt[shared:], shared, prompt=True), *answers_of(group, numbers)]
            for group, numbers in zip(groups, layout.first, strict=True)
        ]
    )
    prompt_mask = owners == 0
    everything = torch.ones(len(groups), shared, dtype=torch.bool)
    rests = _rows(ids, positions, _mask(everything, owners), head or [0] * len(groups), groups, device)

    others = None
    width, other_width = ids.shape[1], 0
    if layout.others:
        back = [place for place, _ in layout.others]
        ids, positions, owners = _padded([answers_of(groups[place], numbers) for place, numbers in layout.others])
        mask = _mask(torch.cat([everything, prompt_mask], 1)[back], owners)
        others = _rows(ids, positions, mask, back, [groups[place] for place in back], device)
        other_width = ids.shape[1]

    starts: dict[tuple[int, int], int] = {}  # of each answer's first token among both passes' hidden states

    def place_answers(group: int, numbers: Sequence[int], start: int) -> None:
        for number in numbers:
            starts[group, number] = start
            start += len(groups[group].answers[number]) - 1

    for place, numbers in enumerate(layout.first):
        place_answers(place, numbers, place * width + len(groups[place].prompt) - shared)
    for row, (place, numbers) in enumerate(layout.others):
        place_answers(place, numbers, len(groups) * width + row * other_width)

    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    answers = 0
    for place, group in enumerate(groups):
        last = place * width + len(group.prompt) - shared - 1  # predicts the first token of every answer
        for number, tokens in enumerate(group.answers):
            start = starts[place, number]
            source += [last, *range(start, start + len(tokens) - 1)][: len(tokens)]
            target += list(tokens)
            owner += [answers] * len(tokens)
            answers += 1
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

    def tokens(batch: Sequence[int]) -> int:
        return lay_out([groups[index] for index in batch], shared).tokens

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
