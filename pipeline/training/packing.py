"""Prompts and several answers to each, computed with nothing computed twice, and with gradients.

A group is a prompt and answers to it. Up to three passes compute a batch of groups, each looking back at keys and
values of the one before, through which the gradient flows:

1. what prompts begin with in common (``core.beginnings``), a row each;
2. the rest of each prompt with answers behind it, a row a group;
3. the other answers, in rows behind their prompts.

Answers of one row that begin alike are a tree: what they have in common is computed once, and each branch sees the way
to its root, the prompt and itself, never another branch. So every log-probability equals that of the answer alone,
whichever row it stands in. Samples of a policy have much in common, the more the longer it has been trained (measured
on six samples a prompt, before and after: sums 65 and 79 % of the tokens that answers read, functions 33 and 66 %,
oldest 17 and 35 %). They end raggedly; several share a row where that costs less than padding each to the longest
(``lay_out``). The last token of an answer is predicted, never read.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import BoolTensor, LongTensor, Tensor

from pipeline.model.decoding.cache import Past
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.prefixes import common_beginnings


@dataclass(frozen=True)
class Group:
    """A prompt, its answers, and the row of an attached adapter (see ``Attachment.begin``) it is computed with."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    row: int = 0

    @cached_property
    def common(self) -> list[list[int]]:
        """For each answer and each: how many tokens that they read they begin with in common; for itself, all."""
        read = [answer[:-1] for answer in self.answers]
        return [[_common(one, other) for other in read] for one in read]

    def new(self, number: int, row: Sequence[int]) -> int:
        """How many tokens of an answer are not in a tree of others."""
        common = self.common[number]
        return common[number] - max((common[other] for other in row), default=0)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


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
    states: (S,) indices into the flattened hidden states of the second and the third pass, of those that predict.
    For each of the N answer tokens of the batch, group by group, answer by answer: state: (N,) which of the S predicts
    it; target: (N,) its id; answer: (N,) which answer of the batch it belongs to.
    """

    beginnings: Rows | None
    rests: Rows
    prompt_mask: BoolTensor
    others: Rows | None
    shared: int
    states: LongTensor
    state: LongTensor
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


STARTING = 100  # tokens: about what a batch costs beside its own (SmolLM2-135M on a CPU)
KEYS = 128  # looked at by a token cost about as much as its products with the weights (SmolLM2-135M on a CPU)


def lay_out(groups: Sequence[Group], shared: int) -> Layout:
    """The cheapest of a few layouts: rows for one or two of the longest answers or for all, filled with as many as fit.

    Few wide rows pad less than many narrow ones, and repeat less of what answers have in common, yet each token looks
    past more that it does not see.
    """
    rest = max(len(group.prompt) for group in groups) - shared
    longest = max(len(answer) for group in groups for answer in group.answers) - 1
    widths = [longest]
    if any(len(group.answers) > 1 for group in groups):
        # What the largest tree needs, and no more than it: in a row of its own it holds all answers of its group
        largest = max(_tokens(group, range(len(group.answers))) for group in groups)
        widths = sorted({min(width, largest) for width in (longest, 2 * longest, largest)})
    layouts = [_filled(groups, shared, rest + first, other) for first, other in itertools.product(widths, widths)]
    return min(layouts, key=lambda layout: layout.cost)


def _tokens(group: Group, numbers: Sequence[int]) -> int:
    """How many tokens the tree of some answers has."""
    return sum(group.new(number, numbers[:place]) for place, number in enumerate(numbers))


def _filled(groups: Sequence[Group], shared: int, width: int, other_width: int) -> Layout:
    """Rows of at most these widths, the longest answers placed first, each where it has most in common."""
    first, others, used, used_others = [], [], [], [0]
    for place, group in enumerate(groups):
        rest = len(group.prompt) - shared
        rows: list[list[int]] = [[]]
        rooms = [width - rest]
        for number in sorted(range(len(group.answers)), key=lambda number: -len(group.answers[number])):
            new = [group.new(number, row) for row in rows]
            fitting = [row for row, room in enumerate(rooms) if new[row] <= room]
            row = min(fitting, key=lambda row: new[row], default=len(rows))
            if row == len(rows):
                rows.append([])
                rooms.append(other_width)
                new.append(group.common[number][number])
            rows[row].append(number)
            rooms[row] -= new[row]
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
    """Tokens of a row that follow each other. start: position of the first.

    stem: places in the row of the tokens it grows out of, the prompt's aside, which all see that stand behind it.
    """

    ids: Sequence[int]
    start: int
    stem: Sequence[int] = ()
    prompt: bool = False


def _branches(group: Group, numbers: Sequence[int], begin: int) -> tuple[list[_Segment], dict[int, list[int]]]:
    """Answers of a group as a tree, from place ``begin`` of a row: a segment for what each has of its own, and where in
    the row the tokens of each stand."""
    segments: list[_Segment] = []
    paths: dict[int, list[int]] = {}
    for number in numbers:
        common = group.common[number]
        nearest = max(paths, key=lambda other: common[other], default=number)
        stem = paths[nearest][: common[nearest]] if paths else []
        own = group.answers[number][len(stem) : -1]
        segments.append(_Segment(own, len(group.prompt) + len(stem), stem))
        paths[number] = [*stem, *range(begin, begin + len(own))]
        begin += len(own)
    return segments, paths


def _padded(rows: Sequence[Sequence[_Segment]]) -> tuple[LongTensor, LongTensor, BoolTensor, BoolTensor]:
    """ids and positions of each token, whether it is a prompt's, (rows, longest) all, and what it sees of its row,
    (rows, longest, longest).

    Padding sees padding: a row of the softmax without any key would be undefined.
    """
    longest = max(1, *(sum(len(segment.ids) for segment in row) for row in rows))
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    prompts = torch.zeros((len(rows), longest), dtype=torch.bool)
    sees = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
    for place, row in enumerate(rows):
        end = 0
        for segment in row:
            length = len(segment.ids)
            here = slice(end, end + length)
            ids[place, here] = torch.tensor(segment.ids, dtype=torch.long)
            positions[place, here] = torch.arange(segment.start, segment.start + length)
            sees[place, here, here] = torch.ones(length, length, dtype=torch.bool).tril()
            sees[place, here, list(segment.stem)] = True
            sees[place, here] |= prompts[place]
            prompts[place, here] = segment.prompt
            end += length
    return ids, positions, prompts, sees


def _mask(before: BoolTensor, sees: BoolTensor) -> BoolTensor:
    """Every token sees ``before`` (rows, looked back), and of its own pass ``sees``; see ``_padded``."""
    return torch.cat([before[:, None].expand(-1, sees.shape[1], -1), sees], 2)[:, None]


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
        ids, positions, _, sees = _padded([[_Segment(group.prompt[:shared], 0, prompt=True)] for group in leaders])
        nothing = torch.zeros(len(leaders), 0, dtype=torch.bool)
        beginnings = _rows(ids, positions, _mask(nothing, sees), [0] * len(leaders), leaders, device)

    rows, paths = [], []  # of the second pass and then the third: segments, and where the answers' tokens stand
    for group, numbers in zip(groups, layout.first, strict=True):
        segments, found = _branches(group, numbers, len(group.prompt) - shared)
        rows.append([_Segment(group.prompt[shared:], shared, prompt=True), *segments])
        paths.append(found)
    ids, positions, prompt_mask, sees = _padded(rows)
    width = ids.shape[1]
    everything = torch.ones(len(groups), shared, dtype=torch.bool)
    rests = _rows(ids, positions, _mask(everything, sees), head or [0] * len(groups), groups, device)

    others = None
    source: dict[tuple[int, int], list[int]] = {}  # of each answer's tokens among both passes' hidden states
    for place, found in enumerate(paths):
        source |= {(place, number): [place * width + at for at in path] for number, path in found.items()}
    if layout.others:
        back = [place for place, _ in layout.others]
        trees = [_branches(groups[place], numbers, 0) for place, numbers in layout.others]
        ids, positions, _, sees = _padded([segments for segments, _ in trees])
        mask = _mask(torch.cat([everything, prompt_mask], 1)[back], sees)
        others = _rows(ids, positions, mask, back, [groups[place] for place in back], device)
        for row, (place, (_, found)) in enumerate(zip(back, trees, strict=True)):
            begin = len(groups) * width + row * ids.shape[1]
            source |= {(place, number): [begin + at for at in path] for number, path in found.items()}

    predicting: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    answers = 0
    for place, group in enumerate(groups):
        last = place * width + len(group.prompt) - shared - 1  # predicts the first token of every answer
        for number, tokens in enumerate(group.answers):
            predicting += [last, *source[place, number]][: len(tokens)]
            target += list(tokens)
            owner += [answers] * len(tokens)
            answers += 1
    states, state = torch.tensor(predicting, dtype=torch.long).unique(return_inverse=True)
    return Packed(
        beginnings=beginnings,
        rests=rests,
        prompt_mask=prompt_mask.to(device),
        others=others,
        shared=shared,
        states=states.to(device),
        state=state.to(device),
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
    """Indices of groups, similar sizes together, cut where it costs least: at most ``batch_tokens`` a batch, with the
    padding of both passes.

    Padding a group to the widest of its batch costs tokens, another batch ``STARTING`` and a beginning. A group longer
    than the budget is a batch of its own.
    """

    def tokens(batch: Sequence[int]) -> int:
        return lay_out([groups[index] for index in batch], shared).tokens

    sizes = [tokens([index]) for index in range(len(groups))]
    order = sorted(range(len(groups)), key=lambda index: (-sizes[index], index))
    # From each place in that order on: the cost of all batches, and where the first of them ends
    cheapest = [(0, len(order))] * (len(order) + 1)
    for begin in reversed(range(len(order))):
        width = sizes[order[begin]]
        fitting = max(1, batch_tokens // width)
        ends = range(begin + 1, min(begin + fitting, len(order)) + 1)
        cheapest[begin] = min((STARTING + shared + (end - begin) * width + cheapest[end][0], end) for end in ends)
    begin = 0
    while begin < len(order):
        end = cheapest[begin][1]
        # Groups of several answers may be laid out wider together than each alone
        while end > begin + 1 and tokens(order[begin:end]) > batch_tokens:
            end -= 1
        yield order[begin:end]
        begin = end


def answer_hidden(decoder: torch.nn.Module, packed: Packed, attachment: Attachment) -> Tensor:
    """The final hidden states that predict the answers' tokens, (S, hidden); ``packed.state`` says which tokens."""
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
    return hidden.index_select(0, packed.states)
