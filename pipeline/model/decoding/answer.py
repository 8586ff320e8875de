"""Answer prompts, token after token: the batch job, which drains a list of prompts that are all known beforehand.

What makes it fast, on a CPU first:
1. Prompts are sorted by length and batched by tokens held in the key-value cache, not by rows (``prefill``).
2. A prefix that all prompts of a batch share (a system message, worked turns) is computed once, or once for each
   adapter row where rows have adapters of their own. A prompt's samples share its prefill, and so do the answers it
   writes and the given ones it weighs. Samples share a row as long as their tokens are equal, and get rows of their own
   where they part: each token of the tree that they form is computed once.
3. The cache is allocated once for a batch.
4. Attention with one query is two batched matrix products over the grouped heads (``forward.attention``).
5. Rows whose answers have ended leave the batch and the cache; so do rows whose answers nobody needs any more.
6. Weights are reordered once for each job, for the kernels that read them at every step (``forward.linear``).
7. Sampling is one pass of exp over the logits (``sampling``), which gives the token's log-probability as well.
8. A reference answer that is to be weighed is also a draft of the answer, so one prefill serves both.

Each sample and step has a random number of its own, drawn before the job starts. So a sample does not depend on how
prompts were batched.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile

import torch
from torch import BoolTensor, LongTensor, Tensor

from pipeline.model.decoding.batch import Answer, Filled, job
from pipeline.model.decoding.cache import Cache
from pipeline.model.decoding.prefill import filled_batches
from pipeline.model.decoding.repetition import History, Repetition
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.decoding.step import advance, choose
from pipeline.model.forward.base import Adapted, Base
from pipeline.model.forward.logprobs import token_logprobs

KEEP = 0.75  # rows are given up when fewer than this share of them are needed: moving the cache costs, too

# Callback. Receives newly finished answers by prompt number and returns the prompts that can be dropped.
Finished = Callable[[Mapping[int, Answer]], Collection[int]]


@job
def generate(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    rows: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    repetition: Repetition | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """Answer every prompt; returns the answers to each, in the order of the prompts.

    rows: the row of the adapter that each prompt uses (default: its own number).
    sampling: how answers are drawn, and how many to a prompt (default: one, of the most likely tokens).
    repetition: rules against it (default: none). Log-probabilities are then those under the rules.
    watch: called with the number of prompts that were just finished.
    """
    uniform, samples = None, 1
    if sampling:
        samples = sampling.samples
        uniform = torch.rand(len(prompts), samples, max_new_tokens, generator=sampling.generator)
    temperature = sampling.temperature if sampling else 1.0
    answers: list[list[Answer]] = [[] for _ in prompts]
    for batch, filled in filled_batches(adapted, prompts, rows=rows, more_columns=max_new_tokens, samples=samples):
        drawn = None if uniform is None else uniform[batch]
        history = None
        if repetition:
            asked = [prompts[index] for index in batch for _ in range(samples)]
            history = History(repetition, asked, len(adapted.base.lm_head.weight), adapted.base.device)
        of_batch = _decode(filled, max_new_tokens, uniform=drawn, temperature=temperature, history=history)
        for place, index in enumerate(batch):
            answers[index] = of_batch[place * samples : (place + 1) * samples]
        if watch:
            watch(len(batch))
    return answers


@job
def answer_and_weigh(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    rows: Sequence[int],
    finished: Finished,
) -> list[float]:
    """Answer greedily, and weigh a reference answer to each prompt behind the same prefill.

    A reference is a draft of the answer: as far as its tokens are the most likely ones, they are the answer's, and
    nothing of them is left to be computed. Answers go to ``finished`` as they end. Returns the references'
    log-likelihoods (nats, as ``weigh``).
    """
    values = [0.0] * len(prompts)
    needless: set[int] = set()
    for batch, filled in filled_batches(adapted, prompts, rows=rows, more_columns=max_new_tokens, drafts=references):
        for index, value in zip(batch, _begin_by_drafts(filled, max_new_tokens), strict=True):
            values[index] = value

        def ended(answers: Mapping[int, Answer], batch: Sequence[int] = batch) -> Collection[int]:
            needless.update(finished({batch[place]: answer for place, answer in answers.items()}))
            return [place for place, index in enumerate(batch) if index in needless]

        _decode(filled, max_new_tokens, finished=ended)
    return values


def _begin_by_drafts(filled: Filled, longest: int) -> list[float]:
    """Begin each answer with those first tokens of its draft that are the most likely ones.

    Returns the drafts' log-likelihoods (nats). longest: tokens of an answer, at most. The rest of a draft stays in the
    cache, where nothing looks at it. With the draft ``a b c d`` behind the prompt, of which ``a b c`` were read:

        predicted by   the prompt   a    b    c
        token          a            b    c    d
        most likely    yes          yes  no   yes

    The answer begins with ``a b``, and goes on from the state that b left.
    """
    base = filled.adapted.base
    states = torch.cat([draft.states for draft in filled.drafts])
    target = torch.tensor([id_ for draft in filled.drafts for id_ in draft.ids], device=states.device)
    logprobs, likeliest = token_logprobs(states, base.lm_head, target)
    sums, at = [], 0
    for row, draft in enumerate(filled.drafts):
        values = logprobs[at : at + len(draft.ids)].tolist()
        hits = likeliest[at : at + len(draft.ids)].tolist()
        at += len(draft.ids)
        # What follows a token is known only where it was read. The last token was not, unless nothing follows it.
        usable = next((place + 1 for place, id_ in enumerate(draft.ids) if id_ in base.end_ids), len(values) - 1)
        known = len(list(takewhile(bool, hits[: min(usable, longest)])))
        filled.begun.append((draft.ids[:known], values[:known]))
        filled.hidden[row] = draft.states[min(known, len(values) - 1)]
        sums.append(sum(values))
    return sums


class _Written:
    """The answers of one batch as far as they are written, sample by sample.

    ids, logprobs: (samples, max_new_tokens). counts: (samples,) tokens written. ended: (samples,) by the model itself.
    """

    def __init__(self, base: Base, samples: int, max_new_tokens: int) -> None:
        self.ids = torch.zeros(samples, max_new_tokens, dtype=torch.long, device=base.device)
        self.logprobs = torch.zeros(samples, max_new_tokens, device=base.device)
        self.counts = torch.zeros(samples, dtype=torch.long, device=base.device)
        self.ended = torch.zeros(samples, dtype=torch.bool, device=base.device)
        self._ends = torch.tensor(sorted(base.end_ids), device=base.device)

    def begin(self, number: int, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """What is known of a sample before anything is written."""
        self.ids[number, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        self.logprobs[number, : len(ids)] = torch.tensor(logprobs)
        self.counts[number] = len(ids)
        self.ended[number] = len(ids) > 0 and bool(torch.isin(self.ids[number, len(ids) - 1], self._ends))

    def add(self, samples: LongTensor, ids: LongTensor, logprobs: Tensor) -> None:
        """One more token of each of these samples."""
        self.ids[samples, self.counts[samples]] = ids
        self.logprobs[samples, self.counts[samples]] = logprobs
        self.counts[samples] += 1
        self.ended[samples] = torch.isin(ids, self._ends)

    def last(self, samples: LongTensor) -> LongTensor:
        """The newest token of each of these samples."""
        return self.ids[samples, self.counts[samples] - 1]

    def over(self, samples: LongTensor) -> BoolTensor:
        """Which of these samples need no more tokens."""
        return self.ended[samples] | (self.counts[samples] == self.ids.shape[1])

    def answer(self, number: int) -> Answer:
        count = int(self.counts[number])
        ids, logprobs = self.ids[number, :count].tolist(), self.logprobs[number, :count].tolist()
        return Answer(tuple(ids), tuple(logprobs), bool(self.ended[number]))


def _decode(
    filled: Filled,
    max_new_tokens: int,
    *,
    uniform: Tensor | None = None,
    temperature: float = 1.0,
    history: History | None = None,
    finished: Finished | None = None,
) -> list[Answer]:
    """Answer the prompts of one batch; returns every sample's answer, unless ``finished`` is told them.

    uniform: (prompts, samples, max_new_tokens) numbers to draw by (default: the most likely tokens are taken).
    history: what rules against repetition look at (default: there are no rules).
    finished: told the answers that ended by the place of their prompt in the batch; returns the places to give up.
    """
    base, cache, samples = filled.adapted.base, filled.cache, filled.samples
    device, total = base.device, len(filled.lengths) * samples
    mask = torch.zeros(len(filled.lengths), cache.used + max_new_tokens, dtype=cache.dtype, device=device)
    mask[:, : cache.used].masked_fill_(~filled.visible(), -torch.inf)
    draws = None if uniform is None else uniform.flatten(0, 1).to(device)
    written = _Written(base, total, max_new_tokens)
    for number, (ids, logprobs) in enumerate(filled.begun):
        written.begin(number, ids, logprobs)
    active = torch.arange(total, device=device)  # the samples that are being written, by number
    row = active // samples  # the row of the cache that each of them stands in
    hidden, begun = filled.hidden, False
    while True:
        over = written.over(active)
        if finished is not None and bool(over.any()):
            needless = finished({number: written.answer(number) for number in active[over].tolist()})
            over |= torch.isin(active, torch.tensor(list(needless), dtype=torch.long, device=device))
        active, row = active[~over], row[~over]
        if len(active) == 0:
            break
        if begun:
            row = _branched(cache, row, written.last(active))
            hidden = _advanced(filled, written, active, row=row, mask=mask)
        logits = base.lm_head(hidden)
        drawn = None if draws is None else draws[active, written.counts[active]]
        if history is None:
            ids, logprobs = choose(logits, row, uniform=drawn, temperature=temperature)
        else:
            ruled = history.ruled(active, logits[row])
            ids, logprobs = choose(ruled, torch.arange(len(row), device=device), uniform=drawn, temperature=temperature)
            history.add(active, ids)
        written.add(active, ids, logprobs)
        begun = True
    return [written.answer(number) for number in range(total)] if finished is None else []


def _advanced(filled: Filled, written: _Written, active: LongTensor, *, row: LongTensor, mask: Tensor) -> Tensor:
    """Compute the newest tokens; returns the states that predict the next ones, (rows, hidden).

    active: (samples,) the samples that are being written. row: (samples,) of the cache. mask: (prompts, columns).
    Rows of the cache that no sample stands in are computed, too, and looked at by nobody.
    """
    cache = filled.cache
    prompt, ids, positions = torch.zeros(3, cache.rows, dtype=torch.long, device=row.device)
    prompt[row] = active // filled.samples
    ids[row] = written.last(active)
    positions[row] = filled.lengths[prompt[row]] + written.counts[active] - 1
    hidden = advance(
        filled.adapted,
        cache,
        cache.one_token(cache.used, slice(cache.rows)),
        ids=ids,
        positions=positions,
        rows=filled.rows[prompt],
        mask=mask[prompt, : cache.used + 1],
    )
    cache.used += 1
    return hidden


def _branched(cache: Cache, row: LongTensor, last: LongTensor) -> LongTensor:
    """The row of the cache that each sample goes on in, (samples,), where samples part.

    row: (samples,) where each stood. last: (samples,) its newest token. Samples of one row with equal tokens stay
    together. A row's first branch goes on in it; the others go on in copies of it, in free rows first. Four samples,
    three of them in row 0 of two rows:

        row    0  0  0  1
        last   a  b  a  c      two branches in row 0: a stays, b gets a copy of it in row 2
        goes   0  2  0  1

    When few enough rows are needed (``KEEP``), they are moved together and the others given up.
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
