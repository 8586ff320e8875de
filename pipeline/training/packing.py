"""Prompts and several answers to each, laid out so that nothing is computed twice, with gradients.

A group is a prompt and answers to it. A batch of groups is computed in up to three passes. Each looks back at the keys
and values of the pass before, through which the gradient flows:

1. the beginnings that prompts have in common (``pipeline.model.forward.prefixes``), a row each;
2. the rest of each prompt, with answers behind it, a row for each group;
3. the other answers, in rows behind their prompts.

Answers in one row that begin alike form a tree. What they have in common is computed once, and each branch sees the
prompt, the way back to its root and itself, never another branch. So every log-probability equals that of the answer
alone, whichever row it stands in. The last token of an answer is predicted, never read.

An example of four tokens: the prompt ``p`` with the answers ``a b .`` and ``a c .`` in one row.

    place           0  1  2  3
    token           p  a  b  c
    position        0  1  2  2      c follows a, as b does
    b sees          x  x  x  -
    c sees          x  x  -  x      not b: that is the other branch
    predicts        a  b  .  .      in the first answer
                    a  c     .      in the second: place 1 predicts b for one answer and c for the other

Samples of a policy have much in common, and more the longer it has been trained (six samples a prompt, before and after
training: sums 65 and 79 % of the tokens that answers read, functions 33 and 66 %). Which answers
share a row: ``pipeline.training.layout``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import BoolTensor, LongTensor, Tensor

from pipeline.model.decoding.cache import Past
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.attention import standing, window_of
from pipeline.model.forward.prefixes import common_prefixes
from pipeline.training.layout import Group, lay_out, token_batches


@dataclass(frozen=True)
class Rows:
    """The tokens of one pass, padded on the right to ``seq``.

    ids, positions: (batch, seq).
    mask: (batch, 1, seq, looked back + seq), True where a token may look.
    back: (batch,) the row of the pass before that each row looks back at.
    numbers: (batch,) the adapter's row for each row.
    """

    ids: LongTensor
    positions: LongTensor
    mask: BoolTensor
    back: LongTensor
    numbers: LongTensor


@dataclass(frozen=True)
class Packed:
    """A batch of groups as passes; see the module.

    beginnings: the first pass; None where nothing is shared.
    rests: the second pass. prompt_mask: (groups, seq), True on its tokens of prompts.
    others: the third pass; None where no answer is left for it.
    shared: tokens of a beginning.
    states: (S,) the hidden states that predict, as places in those of the second and the third pass, flattened.
    state, target, answer: (N,) for each answer token, group by group, answer by answer: which of the S states predicts
        it, its id, and which answer of the batch it belongs to.
    answers: in the batch.

    In the module's example: states 0 1 2 3, state 0 1 2 0 1 3, target a b . a c ., answer 0 0 0 1 1 1.
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
class _Segment:
    """Tokens of a row that follow each other.

    start: the first one's position in its sequence.
    stem: places in the row of the answer tokens that it grows out of. (The prompt is seen by all that stand behind it.)
    prompt: these are tokens of the prompt.
    """

    ids: Sequence[int]
    start: int
    stem: Sequence[int] = ()
    prompt: bool = False


def _branches(group: Group, numbers: Sequence[int], begin: int) -> tuple[list[_Segment], dict[int, list[int]]]:
    """Answers of a group as a tree that begins at place ``begin`` of a row.

    Returns a segment for what each answer adds, and the places in the row of the tokens that each answer reads. In the
    module's example, begin 1: the segments ``a b`` (no stem) and ``c`` (stem [1]); the places {0: [1, 2], 1: [1, 3]}.
    """
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
    """Rows of segments as tensors: ids, positions and whether a token is a prompt's, (rows, longest) each; and what
    each token sees of its row, (rows, longest, longest).

    In the module's example the last line of what is seen, that of ``c``, is 1 1 0 1. Padding sees itself: a softmax
    over no key at all would be undefined.
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


def _pass(
    rows: Sequence[Sequence[_Segment]],
    before: BoolTensor,
    back: Sequence[int],
    groups: Sequence[Group],
    device: torch.device,
) -> tuple[Rows, BoolTensor]:
    """Rows of segments as a pass, and which of its tokens are prompts'.

    before: (rows, looked back) what of the pass before is seen, by every token of the row. back: the rows looked back
    at. groups: the group of each row.
    """
    ids, positions, prompts, sees = _padded(rows)
    mask = torch.cat([before[:, None].expand(-1, sees.shape[1], -1), sees], 2)[:, None]
    numbers = torch.tensor([group.row for group in groups], device=device)
    there = torch.tensor(back, device=device)
    return Rows(ids.to(device), positions.to(device), mask.to(device), there, numbers), prompts


def pack(groups: Sequence[Group], *, device: torch.device, shared: int = 0, heads: Sequence[int] = ()) -> Packed:
    """Lay out groups.

    shared: tokens that prompts begin with in common. heads: a number for each group, the same where they do.
    """
    layout = lay_out(groups, shared)
    places: dict[int, int] = {}  # number of a beginning to its place among those of this batch
    head = [places.setdefault(number, len(places)) for number in heads]
    beginnings = None
    if shared:
        leaders = [groups[head.index(place)] for place in range(len(places))]
        begun = [[_Segment(group.prompt[:shared], 0, prompt=True)] for group in leaders]
        nothing = torch.zeros(len(leaders), 0, dtype=torch.bool)
        beginnings, _ = _pass(begun, nothing, [0] * len(leaders), leaders, device)

    rows: list[list[_Segment]] = []
    paths: list[dict[int, list[int]]] = []
    for group, numbers in zip(groups, layout.first, strict=True):
        segments, path = _branches(group, numbers, len(group.prompt) - shared)
        rows.append([_Segment(group.prompt[shared:], shared, prompt=True), *segments])
        paths.append(path)
    everything = torch.ones(len(groups), shared, dtype=torch.bool)
    rests, prompt_mask = _pass(rows, everything, head or [0] * len(groups), groups, device)
    width = prompt_mask.shape[1]
    read = _flat(enumerate(paths), width, 0)  # of each answer's tokens among both passes' hidden states

    others = None
    if layout.others:
        back = [place for place, _ in layout.others]
        trees = [_branches(groups[place], numbers, 0) for place, numbers in layout.others]
        before = torch.cat([everything, prompt_mask], 1)[back]
        others, _ = _pass([segments for segments, _ in trees], before, back, [groups[place] for place in back], device)
        other_paths = [path for _, path in trees]
        read |= _flat(zip(back, other_paths, strict=True), others.ids.shape[1], len(groups) * width)

    # The last token of a prompt predicts the first token of all answers to it
    ends = [place * width + len(group.prompt) - shared - 1 for place, group in enumerate(groups)]
    states, state, target, answer = (part.to(device) for part in _predictions(groups, ends, read))
    answers = sum(len(group.answers) for group in groups)
    return Packed(beginnings, rests, prompt_mask.to(device), others, shared, states, state, target, answer, answers)


def _flat(
    paths: Iterable[tuple[int, dict[int, list[int]]]], width: int, begin: int
) -> dict[tuple[int, int], list[int]]:
    """Group and number of each answer to its tokens' places in a pass, flattened.

    paths: for each row, its group and the places in the row. width: of the rows. begin: where the pass begins.
    """
    return {
        (group, number): [begin + row * width + place for place in path]
        for row, (group, answers) in enumerate(paths)
        for number, path in answers.items()
    }


def _predictions(
    groups: Sequence[Group], ends: Sequence[int], read: Mapping[tuple[int, int], Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``states``, ``state``, ``target`` and ``answer`` of ``Packed``.

    ends: where each prompt's last token stands. read: where the tokens stand that each answer reads.
    """
    predicting: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    answers = 0
    for place, group in enumerate(groups):
        for number, tokens in enumerate(group.answers):
            predicting += [ends[place], *read[place, number]][: len(tokens)]
            target += list(tokens)
            owner += [answers] * len(tokens)
            answers += 1
    states, state = torch.tensor(predicting, dtype=torch.long).unique(return_inverse=True)
    return states, state, torch.tensor(target, dtype=torch.long), torch.tensor(owner, dtype=torch.long)


def packed_batches(
    groups: Sequence[Group], attachment: Attachment, *, batch_tokens: int, device: torch.device
) -> Iterator[tuple[list[int], Packed]]:
    """The groups as batches, each with the indices of its groups.

    batch_tokens: the most tokens of a batch, padding included, shared beginnings not.
    """
    alike = attachment.alike(torch.tensor([group.row for group in groups], device=device))
    common = common_prefixes([group.prompt for group in groups], alike, keep=attachment.tail)
    heads = {place: number for number, places in enumerate(common.groups) for place in places}
    for batch in token_batches(groups, common.length, batch_tokens):
        chosen = [groups[index] for index in batch]
        numbers = [heads[index] for index in batch] if heads else []
        yield batch, pack(chosen, device=device, shared=common.length, heads=numbers)


def answer_hidden(decoder: torch.nn.Module, packed: Packed, attachment: Attachment) -> Tensor:
    """The final hidden states that predict the answers' tokens, (S, hidden); ``packed.state`` says which tokens."""
    past = Past() if packed.beginnings is not None or packed.others is not None else None
    window = window_of(decoder)

    def compute(rows: Rows) -> Tensor:
        keys = None
        if window is not None:
            keys = rows.positions if past is None else past.stand(rows.positions)
        with standing(rows.positions, keys):
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
