"""The decode loop: many prompts, ragged lengths, one adapter per row if need be.

What makes it fast, on a CPU first:
1. Prompts are sorted by length and batched by tokens held in the key-value cache, not by rows.
2. What all prompts of a batch begin with (a system message, worked turns) is computed once, or once per adapter row
   where rows have adapters of their own. A prompt's samples share its prefill, and so do the answers it writes and
   the given ones it weighs. Samples are one row for as long as they are alike, and branch where they part: each token
   of the tree that they are is computed once.
3. The cache is allocated once per batch. On a CPU it is float32 whatever the model's dtype: attention with one query
   is bound by memory and by conversions, and float32 is the faster of the two there.
4. Attention with one query is two batched matrix products over the grouped heads (``core.attention``).
5. Finished rows leave the batch, and their cache with them; so do rows whose answer nobody needs any more.
6. Weights are reordered once a job for the kernels that read them at every step (``core.layout``).
7. Sampling is one pass of exp over the logits (``core.sampling``); the token's log-probability falls out of it.
8. Where a reference answer is to be weighed anyway, it is the draft of the answer: both are had by one prefill.

The randomness of a sample is fixed by its number and step (one uniform each, drawn beforehand), so it does not depend
on how rows were batched.
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import LongTensor, Tensor

from pipeline.core.config import Section
from pipeline.model.decoding.cache import Cache
from pipeline.model.decoding.sampling import greedy, sample
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Base, decoder
from pipeline.model.forward.linear import reordered
from pipeline.model.forward.logprobs import head_weight, token_logprobs
from pipeline.model.forward.prefixes import Beginnings, common_beginnings

KEEP = 0.75  # finished rows leave when the share of unfinished ones falls below this: moving the cache costs, too


class Decoding(Section, at="tasks.{task}.decoding"):
    """How long an answer to a task may be, in tokens."""

    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """Generated ids (the end-of-sequence token included), their log-probabilities (nats), whether it ended itself.

    probability: where this is no sample but one of all answers there can be, the share of it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    probability: float | None = None


Given = ParamSpec("Given")
Result = TypeVar("Result")


def _job(function: Callable[Concatenate[Base, Given], Result]) -> Callable[Concatenate[Base, Given], Result]:
    """Run without gradients, and with the model's weights reordered for as long as the job lasts."""

    @functools.wraps(function)
    def run(base: Base, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with torch.no_grad(), reordered(base.model):
            return function(base, *args, **kwargs)

    return run


# The answers that have just ended, by the number of their prompt, to the numbers of prompts that need no answer now.
Finished = Callable[[Mapping[int, Answer]], Collection[int]]


@_job
def generate(
    base: Base,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    cache_tokens: int,
    attachment: Attachment | None = None,
    rows: Sequence[int] | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """Answer every prompt ``samples`` times; returns the answers in the order of the prompts.

    temperature: 0 takes the most likely token (then ``samples`` is 1), above it samples by ``generator``.
    attachment, rows: an attached adapter and the row of it that each prompt uses (default: its own number).
    batch_tokens, cache_tokens: budgets, with padding, of a prefill pass and of the cache of one batch.
    watch: called with the number of prompts that were just finished.
    """
    if temperature > 0 and generator is None:
        raise ValueError("expected a generator to sample with")
    if temperature == 0 and samples != 1:
        raise ValueError("expected one sample at temperature 0: all would be the same")
    uniform = None
    if temperature > 0:
        uniform = torch.rand(len(prompts), samples, max_new_tokens, generator=generator)
    found: list[list[Answer]] = [[] for _ in prompts]
    for batch, filled in _filled_batches(
        base,
        prompts,
        rows=rows,
        attachment=attachment,
        more_columns=max_new_tokens,
        batch_tokens=batch_tokens,
        cache_tokens=cache_tokens,
        samples=samples,
    ):
        answers = _decode(filled, None if uniform is None else uniform[batch], max_new_tokens, temperature)
        for place, index in enumerate(batch):
            found[index] = answers[place * samples : (place + 1) * samples]
        if watch:
            watch(len(batch))
    return found


@_job
def weigh(
    base: Base,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    batch_tokens: int,
    cache_tokens: int,
    attachment: Attachment | None = None,
    rows: Sequence[int] | None = None,
) -> list[list[float]]:
    """The log-likelihood (nats) of each given continuation of each prompt, summed over its tokens."""
    found: list[list[float]] = [[] for _ in prompts]
    for batch, filled in _filled_batches(
        base,
        prompts,
        rows=rows,
        attachment=attachment,
        more_columns=0,
        batch_tokens=batch_tokens,
        cache_tokens=cache_tokens,
    ):
        for index, values in zip(batch, _weigh(filled, [continuations[index] for index in batch]), strict=True):
            found[index] = values
    return found


@_job
def answer_and_weigh(
    base: Base,
    prompts: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    cache_tokens: int,
    attachment: Attachment,
    rows: Sequence[int],
    finished: Finished,
) -> list[float]:
    """Answer greedily, and weigh a reference answer of each prompt (nats, as ``weigh``) behind the same prefill.

    A reference serves as a draft of the answer: as far as its tokens are the most likely ones, they are the answer,
    and nothing is left to be computed of them. Answers are handed to ``finished`` as they end; the log-likelihoods are
    returned.
    """
    found = [0.0] * len(prompts)
    needless: set[int] = set()
    for batch, filled in _filled_batches(
        base,
        prompts,
        rows=rows,
        attachment=attachment,
        more_columns=max_new_tokens,
        batch_tokens=batch_tokens,
        cache_tokens=cache_tokens,
        drafts=references,
    ):
        for index, value in zip(batch, _begin_by_drafts(filled, max_new_tokens), strict=True):
            found[index] = value

        def ended(answers: Mapping[int, Answer], batch: Sequence[int] = batch) -> Collection[int]:
            needless.update(finished({batch[place]: answer for place, answer in answers.items()}))
            return [place for place, index in enumerate(batch) if index in needless]

        _decode(filled, None, max_new_tokens, 0.0, ended)
    return found


@dataclass(frozen=True)
class _Draft:
    """A draft of an answer, all but its last token computed behind its prompt. states: (tokens, hidden), each predicts
    one of its tokens."""

    ids: Sequence[int]
    states: Tensor


@dataclass
class _Filled:
    """The prompts of one batch, computed: what answering goes on from.

    hidden: (prompts, hidden) the states that predict the next token of an answer. rows: (prompts,) of the adapter.
    lengths: (prompts,) tokens. prefix: tokens that all of them begin with. longest: the columns used of the cache.
    drafts: of answers, or empty. begun: tokens and log-probabilities of each answer that are known already, or empty.
    """

    base: Base
    attachment: Attachment
    cache: Cache
    hidden: Tensor
    rows: LongTensor
    lengths: LongTensor
    prefix: int
    longest: int
    samples: int
    batch_tokens: int
    drafts: list[_Draft]
    begun: list[tuple[Sequence[int], Sequence[float]]] = field(default_factory=list)

    def visible(self) -> Tensor:
        """(prompts, longest): True on the columns that hold tokens of the prompt, or of its answer as far as known."""
        column = torch.arange(self.longest, device=self.lengths.device)
        end = torch.full_like(self.lengths, self.longest)
        for row, draft in enumerate(self.drafts):
            end[row] -= len(draft.ids) - 1
        known = [min(len(ids), len(draft.ids) - 1) for (ids, _), draft in zip(self.begun, self.drafts, strict=True)]
        start = end - self.lengths + self.prefix
        if known:
            end += torch.tensor(known, device=end.device)
        return (column < self.prefix) | (column >= start[:, None]) & (column < end[:, None])


def _filled_batches(
    base: Base,
    prompts: Sequence[Sequence[int]],
    *,
    rows: Sequence[int] | None,
    attachment: Attachment | None,
    more_columns: int,
    batch_tokens: int,
    cache_tokens: int,
    samples: int = 1,
    drafts: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[list[int], _Filled]]:
    """Prefill the prompts, longest first, as many at a time as the cache holds; yields their numbers and the batch."""
    rows = range(len(prompts)) if rows is None else rows
    # a draft's last token is predicted, never read
    whole = [[*prompt, *drafts[index][:-1]] if drafts else prompt for index, prompt in enumerate(prompts)]
    order = sorted(range(len(prompts)), key=lambda index: (-len(whole[index]), index))
    while order:
        columns = len(whole[order[0]]) + more_columns
        size = max(1, cache_tokens // (columns * samples))
        batch, order = order[:size], order[size:]
        yield (
            batch,
            _prefill(
                base,
                [whole[index] for index in batch],
                rows=torch.tensor([rows[index] for index in batch], device=base.device),
                attachment=attachment or Attachment(),
                more_columns=more_columns,
                batch_tokens=batch_tokens,
                samples=samples,
                drafts=[drafts[index] for index in batch] if drafts else [],
            ),
        )


def _prefill(
    base: Base,
    whole: Sequence[Sequence[int]],
    *,
    rows: LongTensor,
    attachment: Attachment,
    more_columns: int,
    batch_tokens: int,
    samples: int,
    drafts: Sequence[Sequence[int]],
) -> _Filled:
    """Compute the prompts, longest first, into a new cache with room for ``more_columns`` tokens of an answer.

    whole: the prompts with what is read of the drafts, if there are any, behind them.
    """
    longest, device = len(whole[0]), base.device
    dtype = torch.float32 if device.type == "cpu" else base.model.dtype
    cache = Cache(len(whole), longest + more_columns, dtype, device, room=len(whole) * samples)
    read_of_draft = [len(draft) - 1 for draft in drafts] or [0] * len(whole)
    prompts = [ids[: len(ids) - more] for ids, more in zip(whole, read_of_draft, strict=True)]
    common = common_beginnings(prompts, attachment.alike(rows), keep=attachment.tail)
    prefix = common.length
    if prefix:
        _prefill_beginnings(
            base,
            prompts,
            cache,
            common,
            rows=rows,
            attachment=attachment,
            batch_tokens=batch_tokens,
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
            hidden = _forward(base, cache, ids, positions, mask[:, None])
        last.append(hidden[:, -1])
        for draft, states in zip(drafts[start:end], hidden, strict=False):
            drafted.append(_Draft(draft, states[-len(draft) :].clone()))
        start = end
    cache.used = longest
    return _Filled(
        base,
        attachment,
        cache,
        torch.cat(last),
        rows,
        torch.tensor([len(prompt) for prompt in prompts], device=device),
        prefix,
        longest,
        samples,
        batch_tokens=batch_tokens,
        drafts=drafted,
    )


def _prefill_beginnings(
    base: Base,
    prompts: Sequence[Sequence[int]],
    cache: Cache,
    common: Beginnings,
    *,
    rows: LongTensor,
    attachment: Attachment,
    batch_tokens: int,
) -> None:
    """Compute what prompts begin with in common once; all of them get the result."""
    prefix = common.length
    size = max(1, batch_tokens // prefix)
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
            _forward(base, cache, ids, positions, causal.expand(len(heads), 1, -1, -1))


def _forward(base: Base, cache: Cache, ids: LongTensor, positions: LongTensor, mask: Tensor) -> Tensor:
    """The final hidden states, (rows, tokens, hidden)."""
    return decoder(base.model)(
        input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
    ).last_hidden_state


def _weigh(filled: _Filled, continuations: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
    """Log-likelihoods (nats) of several continuations of each prompt. The cache is read, not changed.

    Those of one prompt lie in one row behind it; each sees the prompt and itself (as in ``core.packing``). The last
    token of a continuation is predicted, never read.
    """
    base, device = filled.base, filled.base.device
    visible, lengths = filled.visible(), filled.lengths.tolist()
    order = sorted(range(len(continuations)), key=lambda row: -sum(len(c) - 1 for c in continuations[row]))
    found = [[0.0] * len(several) for several in continuations]
    start = 0
    while start < len(order):
        width = max(1, sum(len(c) - 1 for c in continuations[order[start]]))
        part = order[start : start + max(1, filled.batch_tokens // width)]
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

        filled.attachment.begin(filled.rows[rows], None)
        with filled.cache.several_tokens(read=read_behind):
            hidden = _forward(base, filled.cache, ids.to(device), positions.to(device), mask[:, None])
        states = torch.cat([filled.hidden[rows], hidden.flatten(0, 1)])[torch.tensor(source, device=device)]
        logprobs, _ = token_logprobs(states, head_weight(base.model), torch.tensor(target, device=device))
        for (row, number), value in zip(owner, logprobs.tolist(), strict=True):
            found[row][number] += value
    return found


def _begin_by_drafts(filled: _Filled, longest: int) -> list[float]:
    """The log-likelihoods (nats) of the drafts; each one's beginning of most likely tokens becomes the answer's.

    longest: tokens of an answer, at most. The rest of a draft stays in the cache, where nothing looks at it.
    """
    states = torch.cat([draft.states for draft in filled.drafts])
    target = torch.tensor([id_ for draft in filled.drafts for id_ in draft.ids], device=states.device)
    logprobs, likeliest = token_logprobs(states, head_weight(filled.base.model), target)
    found, at = [], 0
    for row, draft in enumerate(filled.drafts):
        values = logprobs[at : at + len(draft.ids)].tolist()
        hits = likeliest[at : at + len(draft.ids)].tolist()
        at += len(draft.ids)
        # what follows a token is only known where it was read; the last one was not, unless nothing follows it
        sure = next((place + 1 for place, id_ in enumerate(draft.ids) if id_ in filled.base.end_ids), len(values) - 1)
        known = len(list(takewhile(bool, hits[: min(sure, longest)])))
        filled.begun.append((draft.ids[:known], values[:known]))
        filled.hidden[row] = draft.states[min(known, len(values) - 1)]
        found.append(sum(values))
    return found


def _decode(
    filled: _Filled,
    uniform: Tensor | None,
    max_new_tokens: int,
    temperature: float,
    finished: Finished | None = None,
) -> list[Answer]:
    """Answer the prompts of one batch. uniform: (prompts, samples, max_new_tokens), or None for the most likely tokens.

    finished: told the answers that ended by the place of their prompt in the batch; says which rows to give up.
    """
    base, cache, samples = filled.base, filled.cache, filled.samples
    device, total = base.device, len(filled.lengths) * samples
    mask = torch.zeros(len(filled.lengths), cache.used + max_new_tokens, dtype=cache.dtype, device=device)
    mask[:, : cache.used].masked_fill_(~filled.visible(), -torch.inf)
    draws = None if uniform is None else uniform.flatten(0, 1).to(device)
    ids_out = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
    logprobs_out = torch.zeros(total, max_new_tokens, device=device)
    counts = torch.zeros(total, dtype=torch.long, device=device)
    for number, (ids, logprobs) in enumerate(filled.begun):
        ids_out[number, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        logprobs_out[number, : len(ids)] = torch.tensor(logprobs)
        counts[number] = len(ids)
    ends = torch.tensor(sorted(base.end_ids), device=device)
    ended = torch.isin(ids_out.gather(1, (counts - 1).clamp_(min=0)[:, None]), ends).squeeze(1) & (counts > 0)

    def answer(number: int) -> Answer:
        count = int(counts[number])
        return Answer(
            tuple(ids_out[number, :count].tolist()), tuple(logprobs_out[number, :count].tolist()), bool(ended[number])
        )

    active = torch.arange(total, device=device)  # numbers of the samples that are being written
    row = active // samples  # of the cache, in which each of them stands
    hidden, begun = filled.hidden, False
    while True:
        over = ended[active] | (counts[active] == max_new_tokens)
        if finished is not None and bool(over.any()):
            needless = finished({number: answer(number) for number in active[over].tolist()})
            over |= torch.isin(active, torch.tensor(list(needless), dtype=torch.long, device=device))
        active, row = active[~over], row[~over]
        if len(active) == 0:
            break
        if begun:
            row = _branched(cache, row, ids_out[active, counts[active] - 1])
            prompt, ids, positions = torch.zeros(3, cache.rows, dtype=torch.long, device=device)
            prompt[row] = active // samples
            ids[row] = ids_out[active, counts[active] - 1]
            positions[row] = filled.lengths[prompt[row]] + counts[active] - 1
            filled.attachment.begin(filled.rows[prompt], None)
            seen = mask[prompt, None, None, : cache.used + 1]
            hidden = _forward(base, cache, ids[:, None], positions[:, None], seen)[:, -1]
            cache.used += 1
        logits = base.model.get_output_embeddings()(hidden)
        if draws is None:
            chosen, logprob = (of_rows[row] for of_rows in greedy(logits))
        else:
            chosen, logprob = sample(logits[row], draws[active, counts[active]], temperature)
        ids_out[active, counts[active]] = chosen
        logprobs_out[active, counts[active]] = logprob
        counts[active] += 1
        ended[active] = torch.isin(chosen, ends)
        begun = True
    return [answer(number) for number in range(total)] if finished is None else []


def _branched(cache: Cache, row: LongTensor, last: LongTensor) -> LongTensor:
    """Which row of the cache each sample goes on in. row: (samples,) where each stood; last: (samples,) its token.

    Samples of one row that drew the same token stay together. The first of each row's branches goes on in it, the
    others in copies, where rows have become free first. Rows that none of them needs leave when they are many.
    """
    branches, branch = torch.stack([row, last]).unique(dim=1, return_inverse=True)  # sorted by row
    place = branches[0].clone()
    again = torch.zeros_like(place, dtype=torch.bool)
    again[1:] = place[1:] == place[:-1]
    parting = int(again.sum())
    if parting:
        needed = torch.zeros(cache.rows + parting, dtype=torch.bool, device=row.device)
        needed[place] = True
        place[again] = (~needed).nonzero().squeeze(1)[:parting]
        cache.copy(branches[0, again], place[again])
    row = place[branch]
    if len(place) < KEEP * cache.rows:
        cache.keep(place, room=len(row))
        row = branch
    return row
