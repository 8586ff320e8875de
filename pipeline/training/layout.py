"""Which answers share a row, and which groups a batch: what costs least to compute.

A group is a prompt and answers to it. Its answers differ in length and begin alike: rows of one answer each would be
padded, and would repeat what answers have in common. Rows of several answers do neither (they are a tree, see
``pipeline.training.packing``), but each of their tokens looks past keys that it does not see.

The example: the prompt ``p`` with the answers ``a b .`` and ``a c .``. They read ``a b`` and ``a c``, so one row holds
``p a b c``.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Group:
    """A prompt and its answers, as token ids. row: the attached adapter's row for them (see ``Attachment.begin``)."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]
    row: int = 0

    @cached_property
    def common(self) -> list[list[int]]:
        """common[i][j]: length of the prefix that answers i and j share, last token excluded."""
        read = [answer[:-1] for answer in self.answers]
        return [[_common_length(answer, other) for other in read] for answer in read]

    def new(self, number: int, row: Sequence[int]) -> int:
        """How many tokens an answer adds to a tree. number: of the answer. row: the answers in the tree."""
        common = self.common[number]
        return common[number] - max((common[other] for other in row), default=0)


def _common_length(answer: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    pairs = enumerate(zip(answer, other, strict=False))
    return next((place for place, (mine, others) in pairs if mine != others), min(len(answer), len(other)))


@dataclass(frozen=True)
class Layout:
    """Which answers stand in which row. An answer's number is its place in the group's ``answers``.

    first: for each group, the answers behind the rest of its prompt.
    others: the rows of the third pass, (group, answers) each.
    tokens: of both passes, padding included.
    cost: time, in tokens that look at nothing (see ``KEYS``).

    In the module's example: first ((0, 1),), others (), tokens 4.
    """

    first: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, tuple[int, ...]], ...]
    tokens: int
    cost: float


# Both measured with SmolLM2-135M on a CPU.
STARTING = 100  # what a batch costs beside its tokens, in tokens
KEYS = 128  # so many keys that a token looks at cost as much as its products with the weights


def lay_out(groups: Sequence[Group], shared: int) -> Layout:
    """The cheapest of a few layouts: rows as wide as the longest answer, as two of it, or as the largest tree.

    Few wide rows need less padding than many narrow ones, and repeat less of what answers have in common. But their
    tokens look past more keys that they do not see.
    """
    rest = max(len(group.prompt) for group in groups) - shared
    longest = max(len(answer) for group in groups for answer in group.answers) - 1
    widths = [longest]
    if any(len(group.answers) > 1 for group in groups):
        # No row needs to be wider than the largest tree, which holds all answers of its group
        largest = max(_tokens(group, range(len(group.answers))) for group in groups)
        widths = sorted({min(width, largest) for width in (longest, 2 * longest, largest)})
    layouts = [_filled(groups, shared, rest + first, other) for first, other in itertools.product(widths, widths)]
    return min(layouts, key=lambda layout: layout.cost)


def _tokens(group: Group, numbers: Sequence[int]) -> int:
    """How many tokens the tree of some answers has, in the order in which they are added."""
    return sum(group.new(number, numbers[:place]) for place, number in enumerate(numbers))


def _filled(groups: Sequence[Group], shared: int, width: int, other_width: int) -> Layout:
    """Rows of at most these widths (tokens); the longest answers are placed first, each where it adds least.

    width: of the second pass, the rest of the prompt included. other_width: of the third.

    In the module's example, width 4: ``a b`` leaves room for one more token behind ``p``, and ``a c`` adds only ``c``.
    With width 3, ``a c`` begins a row of the third pass.
    """
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


def token_batches(groups: Sequence[Group], shared: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of the groups of each batch: groups of similar size together, cut where it costs least.

    A group that is padded to the widest of its batch costs tokens; another batch costs ``STARTING`` and a beginning. A
    group longer than the budget is a batch of its own.

    shared: tokens of a beginning. batch_tokens: the most of a batch, the padding of both passes included.
    """

    def tokens(batch: Sequence[int]) -> int:
        return lay_out([groups[index] for index in batch], shared).tokens

    sizes = [tokens([index]) for index in range(len(groups))]
    order = sorted(range(len(groups)), key=lambda index: (-sizes[index], index))
    # cheapest[i]: the least cost of batches for all groups from place i of that order on, and where the first ends
    cheapest = [(0, len(order))] * (len(order) + 1)
    for begin in reversed(range(len(order))):
        width = sizes[order[begin]]
        fitting = max(1, batch_tokens // width)
        ends = range(begin + 1, min(begin + fitting, len(order)) + 1)
        cheapest[begin] = min((STARTING + shared + (end - begin) * width + cheapest[end][0], end) for end in ends)
    begin = 0
    while begin < len(order):
        end = cheapest[begin][1]
        # Groups of several answers may be laid out wider together than each is alone
        while end > begin + 1 and tokens(order[begin:end]) > batch_tokens:
            end -= 1
        yield order[begin:end]
        begin = end
