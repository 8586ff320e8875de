"""One prompt and several answers to it as one sequence: the prompt is computed once.

A group ``[p₁ … pₙ | a₁ … | b₁ … | …]`` is laid out in one row. Each answer's tokens see the prompt and the earlier
tokens of the same answer, never another answer, and their positions go on from the prompt's: so every log-probability
equals that of the answer alone behind the prompt. With four samples of 20 tokens behind 60 tokens of prompt this is
140 tokens of work instead of 320.

What the prompts of a step begin with in common (``core.beginnings``) is computed once, too, in a pass before, and the
gradient flows back through its keys and values.
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

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(len(answer) for answer in self.answers)


@dataclass(frozen=True)
class Packed:
    """A batch of groups without the beginnings they share, padded on the right to ``seq``.

    beginnings: (heads, shared) ids, or None. head: (batch,) which of them each group has; head_rows: (heads,).
    ids, positions: (batch, seq). mask: (batch, 1, seq, shared + seq), True where a token may look.
    prompt_mask: (batch, seq), True on prompts. rows: (batch,).
    For each of the N answer tokens of the batch, group by group, answer by answer:
    source: (N,) index into the flattened (batch · seq) hidden states of the one that predicts it;
    target: (N,) its id; answer: (N,) which answer of the batch it belongs to.
    """

    beginnings: LongTensor | None
    head: LongTensor
    head_rows: LongTensor
    ids: LongTensor
    positions: LongTensor
    mask: BoolTensor
    prompt_mask: BoolTensor
    rows: LongTensor
    source: LongTensor
    target: LongTensor
    answer: LongTensor
    answers: int

    @property
    def shared(self) -> int:
        """Tokens of a beginning."""
        return 0 if self.beginnings is None else self.beginnings.shape[1]


def pack(groups: Sequence[Group], *, device: torch.device, shared: int = 0, heads: Sequence[int] = ()) -> Packed:
    """Lay out groups side by side.

    shared: tokens that prompts begin with in common; heads: a number for each group, the same where they do.
    """
    length = max(group.tokens for group in groups) - shared
    ids = torch.zeros((len(groups), length), dtype=torch.long)
    positions = torch.zeros((len(groups), length), dtype=torch.long)
    segment = torch.full((len(groups), length), -1, dtype=torch.long)  # −1 padding, 0 prompt, 1… the answers
    source, target, answer_index = [], [], []
    answers = 0
    for row, group in enumerate(groups):
        size = len(group.prompt) - shared
        ids[row, :size] = torch.tensor(group.prompt[shared:])
        positions[row, :size] = torch.arange(shared, shared + size)
        segment[row, :size] = 0
        start = size
        for number, answer in enumerate(group.answers, start=1):
            end = start + len(answer)
            ids[row, start:end] = torch.tensor(answer, dtype=torch.long)
            positions[row, start:end] = torch.arange(shared + size, shared + size + len(answer))
            segment[row, start:end] = number
            before = [size - 1, *range(start, end - 1)][: len(answer)]  # the prompt's last token predicts the first
            source += [row * length + place for place in before]
            target += list(answer)
            answer_index += [answers] * len(answer)
            answers += 1
            start = end
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = segment[:, :, None] == segment[:, None, :]
    on_prompt = (segment == 0)[:, None, :] & (segment > 0)[:, :, None]
    # Padding sees padding: a row of the softmax without any key would be undefined.
    mask = (same | on_prompt) & causal
    mask = torch.cat([mask.new_ones(len(groups), length, shared), mask], 2)[:, None]
    places: dict[int, int] = {}  # number of a beginning to its place among those of this batch
    head = [places.setdefault(number, len(places)) for number in heads]
    first = [head.index(place) for place in range(len(places))]
    return Packed(
        beginnings=torch.tensor([list(groups[row].prompt[:shared]) for row in first], device=device)
        if shared
        else None,
        head=torch.tensor(head, dtype=torch.long, device=device),
        head_rows=torch.tensor([groups[row].row for row in first], dtype=torch.long, device=device),
        ids=ids.to(device),
        positions=positions.to(device),
        mask=mask.to(device),
        prompt_mask=(segment == 0).to(device),
        rows=torch.tensor([group.row for group in groups], device=device),
        source=torch.tensor(source, dtype=torch.long, device=device),
        target=torch.tensor(target, dtype=torch.long, device=device),
        answer=torch.tensor(answer_index, dtype=torch.long, device=device),
        answers=answers,
    )


def packed_batches(
    groups: Sequence[Group], attachment: Attachment, *, batch_tokens: int, device: torch.device
) -> Iterator[tuple[list[int], Packed]]:
    """The groups as batches of at most ``batch_tokens`` (padding included, beginnings not), with their indices."""
    alike = attachment.alike(torch.tensor([group.row for group in groups], device=device))
    found = common_beginnings([group.prompt for group in groups], alike, keep=attachment.tail)
    heads = {place: number for number, places in enumerate(found.groups) for place in places}
    for batch in token_batches([group.tokens - found.length for group in groups], batch_tokens):
        chosen = [groups[index] for index in batch]
        numbers = [heads[index] for index in batch] if heads else []
        yield batch, pack(chosen, device=device, shared=found.length, heads=numbers)


def token_batches(sizes: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of things of so many tokens, similar sizes together: at most ``batch_tokens`` a batch, with padding.

    What is longer than the budget is a batch of its own.
    """
    order = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    batch: list[int] = []
    for index in order:  # longest first: the first of a batch is what the others are padded to
        if batch and sizes[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def answer_hidden(decoder: torch.nn.Module, packed: Packed, attachment: Attachment) -> Tensor:
    """The final hidden states that predict the answers' tokens, (N, hidden)."""
    past = None
    if packed.beginnings is not None:
        past = Past()
        heads, length = packed.beginnings.shape
        mask = torch.ones(length, length, dtype=torch.bool, device=packed.ids.device).tril()
        attachment.begin_part(
            packed.head_rows, torch.ones_like(packed.beginnings, dtype=torch.bool), before=0, after=attachment.tail
        )
        decoder(
            input_ids=packed.beginnings,
            position_ids=torch.arange(length, device=packed.ids.device).expand(heads, -1),
            attention_mask=mask.expand(heads, 1, -1, -1),
            past_key_values=past,
            use_cache=True,
        )
        past.hand_out(packed.head)
    attachment.begin_part(packed.rows, packed.prompt_mask, before=packed.shared, after=0)
    hidden = decoder(
        input_ids=packed.ids,
        position_ids=packed.positions,
        attention_mask=packed.mask,
        past_key_values=past,
        use_cache=past is not None,
    ).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, packed.source)
