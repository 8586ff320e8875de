"""How well candidate mixtures answer a few prompts: what a search for α is driven by.

All candidates answer all prompts in one batch, each row of it under its own mixture. The likelihood of the reference
answers is taken behind the same prefill. A candidate that can no longer be among the best ones is not answered with
any further.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from pipeline.core.types import Example, Scorer
from pipeline.model.decoding.answer import answer_and_weigh
from pipeline.model.decoding.batch import Answer, Decoding
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted, Base, Compute

PILE = 8  # answers are scored when a 1/PILE of them has come in: a scorer may start processes for every call


class _Tally:
    """Right and open answers of every candidate; candidates × examples answers, candidate by candidate."""

    def __init__(self, base: Base, examples: Sequence[Example], *, candidates: int, best: int, score: Scorer) -> None:
        self._base, self._examples, self._score, self._best = base, examples, score, best
        self.right = torch.zeros(candidates)
        self._open = torch.full((candidates,), float(len(examples)))
        self._waiting: dict[int, Answer] = {}
        self._awaited = set(range(candidates * len(examples)))

    def __call__(self, answers: Mapping[int, Answer]) -> Collection[int]:
        """Take in answers; returns those still awaited of candidates that can't reach the ``best`` best any more."""
        self._waiting |= answers
        self._awaited -= answers.keys()
        if len(self._waiting) * PILE < len(self.right) * len(self._examples) and self._awaited:
            return ()
        numbers, self._waiting = self._waiting, {}
        asked = [self._examples[number % len(self._examples)] for number in numbers]
        scores = self._score(asked, [self._base.text(answer.ids) for answer in numbers.values()])
        for number, item in zip(numbers, scores, strict=True):
            self.right[number // len(self._examples)] += item.correct
            self._open[number // len(self._examples)] -= 1
        bar = self.right.sort(descending=True).values[self._best - 1]
        lost = self.right + self._open < bar  # not ≤: equal accuracies are ranked by likelihood
        needless = [number for number in self._awaited if lost[number // len(self._examples)]]
        self._awaited.difference_update(needless)
        return needless


def judge(
    base: Base,
    attachment: Attachment,
    examples: Sequence[Example],
    *,
    candidates: int,
    best: int,
    score: Scorer,
    decoding: Decoding,
    compute: Compute,
) -> tuple[Tensor, Tensor]:
    """Of every candidate, row 0 … C−1 of the attachment: accuracy of its greedy answers, (C,), and the mean
    log-likelihood of a token of the reference answers, (C,), nats.

    best: how many candidates matter. The accuracy of a candidate that is not among them may be a lower bound of it.
    """
    prompts = [base.prompt_ids(example.messages) for example in examples]
    references = [base.answer_ids(example.target) for example in examples]
    tally = _Tally(base, examples, candidates=candidates, best=best, score=score)
    found = answer_and_weigh(
        Adapted(base, compute, attachment),
        prompts * candidates,
        references * candidates,
        max_new_tokens=decoding.max_new_tokens,
        rows=[candidate for candidate in range(candidates) for _ in examples],
        finished=tally,
    )
    likelihood = torch.tensor(found).view(candidates, len(examples)).sum(1)
    return tally.right / len(examples), likelihood / sum(len(reference) for reference in references)
