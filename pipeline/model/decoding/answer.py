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

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile

import torch
from torch import LongTensor, Tensor

from pipeline.model.decoding.batch import Answer, Filled, forward, job
from pipeline.model.decoding.cache import Cache
from pipeline.model.decoding.prefill import filled_batches
from pipeline.model.decoding.sampling import Sampling, greedy, sample
from pipeline.model.forward.base import Adapted
from pipeline.model.forward.logprobs import head_weight, token_logprobs

KEEP = 0.75  # finished rows leave when the share of unfinished ones falls below this: moving the cache costs, too


# The answers that have just ended, by the number of their prompt, to the numbers of prompts that need no answer now.
Finished = Callable[[Mapping[int, Answer]], Collection[int]]


@job
def generate(
    adapted: Adapted,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    rows: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """Answer every prompt; returns the answers to each, in the order of the prompts.

    rows: the row of the adapter that each prompt uses (default: its own number).
    sampling: how answers are drawn, and how many to a prompt (default: one, of the most likely tokens).
    watch: called with the number of prompts that were just finished.
    """
    uniform, samples = None, 1
    if sampling:
        samples = sampling.samples
        uniform = torch.rand(len(prompts), samples, max_new_tokens, generator=sampling.generator)
    temperature = sampling.temperature if sampling else 0.0
    found: list[list[Answer]] = [[] for _ in prompts]
    for batch, filled in filled_batches(adapted, prompts, rows=rows, more_columns=max_new_tokens, samples=samples):
        answers = _decode(filled, None if uniform is None else uniform[batch], max_new_tokens, temperature)
        for place, index in enumerate(batch):
            found[index] = answers[place * samples : (place + 1) * samples]
        if watch:
            watch(len(batch))
    return found


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
    """Answer greedily, and weigh a reference answer of each prompt (nats, as ``weigh``) behind the same prefill.

    A reference serves as a draft of the answer: as far as its tokens are the most likely ones, they are the answer,
    and nothing is left to be computed of them. Answers are handed to ``finished`` as they end; the log-likelihoods are
    returned.
    """
    found = [0.0] * len(prompts)
    needless: set[int] = set()
    for batch, filled in filled_batches(adapted, prompts, rows=rows, more_columns=max_new_tokens, drafts=references):
        for index, value in zip(batch, _begin_by_drafts(filled, max_new_tokens), strict=True):
            found[index] = value

        def ended(answers: Mapping[int, Answer], batch: Sequence[int] = batch) -> Collection[int]:
            needless.update(finished({batch[place]: answer for place, answer in answers.items()}))
            return [place for place, index in enumerate(batch) if index in needless]

        _decode(filled, None, max_new_tokens, 0.0, ended)
    return found


def _begin_by_drafts(filled: Filled, longest: int) -> list[float]:
    """The log-likelihoods (nats) of the drafts; each one's beginning of most likely tokens becomes the answer's.

    longest: tokens of an answer, at most. The rest of a draft stays in the cache, where nothing looks at it.
    """
    states = torch.cat([draft.states for draft in filled.drafts])
    target = torch.tensor([id_ for draft in filled.drafts for id_ in draft.ids], device=states.device)
    logprobs, likeliest = token_logprobs(states, head_weight(filled.adapted.base.model), target)
    found, at = [], 0
    for row, draft in enumerate(filled.drafts):
        values = logprobs[at : at + len(draft.ids)].tolist()
        hits = likeliest[at : at + len(draft.ids)].tolist()
        at += len(draft.ids)
        # what follows a token is only known where it was read; the last one was not, unless nothing follows it
        sure = next(
            (place + 1 for place, id_ in enumerate(draft.ids) if id_ in filled.adapted.base.end_ids), len(values) - 1
        )
        known = len(list(takewhile(bool, hits[: min(sure, longest)])))
        filled.begun.append((draft.ids[:known], values[:known]))
        filled.hidden[row] = draft.states[min(known, len(values) - 1)]
        found.append(sum(values))
    return found


def _decode(
    filled: Filled,
    uniform: Tensor | None,
    max_new_tokens: int,
    temperature: float,
    finished: Finished | None = None,
) -> list[Answer]:
    """Answer the prompts of one batch. uniform: (prompts, samples, max_new_tokens), or None for the most likely tokens.

    finished: told the answers that ended by the place of their prompt in the batch; says which rows to give up.
    """
    base, cache, samples = filled.adapted.base, filled.cache, filled.samples
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
            filled.adapted.attachment.begin(filled.rows[prompt], None)
            seen = mask[prompt, None, None, : cache.used + 1]
            hidden = forward(base, cache, ids[:, None], positions[:, None], seen)[:, -1]
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
