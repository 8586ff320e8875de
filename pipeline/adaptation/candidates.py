"""How well candidate mixtures answer a few prompts: what drives a search for α.

All candidates answer all prompts in one batch, each row of it under its own mixture; the likelihood of the reference
answers is taken behind the same prefill. A candidate that can no longer be among the best ones gets no further answers.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.core.types import Example, Scorer
from pipeline.model.decoding.answer import answer_and_weigh
from pipeline.model.decoding.batch import Answer, Decoding, Per
from pipeline.model.decoding.choose import continuations, lengths, likeliest
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.base import Adapted, Base

PILE = 8  # answers are scored when a 1/PILE of them has come in: a scorer may start processes for every call


@dataclass(frozen=True)
class Exam:
    """What candidates are judged by. examples: the prompts. score: of their task. decoding: how they are answered."""

    examples: Sequence[Example]
    score: Scorer
    decoding: Decoding


class _Tally:
    """Right and open answers of every candidate.

    best: how many candidates matter. right: (candidates,), correct answers so far. Answers are numbered candidate by
    candidate, candidates × examples in all.
    """

    def __init__(self, base: Base, exam: Exam, *, candidates: int, best: int) -> None:
        self._base, self._examples, self._score, self._best = base, exam.examples, exam.score, best
        self.right = torch.zeros(candidates)
        self._open = torch.full((candidates,), float(len(exam.examples)))
        self._waiting: dict[int, Answer] = {}
        self._awaited = set(range(candidates * len(exam.examples)))

    def __call__(self, answers: Mapping[int, Answer]) -> Collection[int]:
        """Take in answers by number; returns those still awaited of candidates that can't reach the ``best`` best."""
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


def judge(adapted: Adapted, exam: Exam, *, candidates: int, best: int) -> tuple[Tensor, Tensor]:
    """How good candidates are. Row c of the attachment is candidate c.

    best: how many candidates matter; the accuracy of another may be a lower bound of it.
    Returns the accuracy of their greedy answers, (candidates,), and the mean log-likelihood of a token of the reference
    answers, (candidates,), in nats.
    """
    if exam.decoding.choose_by is not None:
        return _judge_choices(adapted, exam, exam.decoding.choose_by, candidates)
    base, examples = adapted.base, exam.examples
    prompts = [base.prompt_ids(example.messages) for example in examples]
    references = [base.answer_ids(example.target) for example in examples]
    tally = _Tally(base, exam, candidates=candidates, best=best)
    weights = answer_and_weigh(
        adapted,
        prompts * candidates,
        references * candidates,
        max_new_tokens=exam.decoding.limit,
        rows=[candidate for candidate in range(candidates) for _ in examples],
        finished=tally,
    )
    likelihood = torch.tensor(weights).view(candidates, len(examples)).sum(1)
    return tally.right / len(examples), likelihood / sum(len(reference) for reference in references)


def _judge_choices(adapted: Adapted, exam: Exam, per: Per, candidates: int) -> tuple[Tensor, Tensor]:
    """What ``judge`` returns, of prompts that are answered by choosing: the reference answer is the right choice."""
    base, examples = adapted.base, exam.examples
    choices = [continuations(base, example) for example in examples]
    weighed = weigh(
        adapted,
        [base.prompt_ids(example.messages) for example in examples] * candidates,
        choices * candidates,
        rows=[candidate for candidate in range(candidates) for _ in examples],
    )
    asked, texts, likelihoods, tokens = list(examples) * candidates, [], [], 0
    for example, several, weights in zip(asked, choices * candidates, weighed, strict=True):
        right = list(example.choices).index(example.meta["answer"])
        texts.append(base.text(several[likeliest(weights, lengths(example, several, per))]))
        likelihoods.append(weights[right])
        tokens += len(several[right])
    scores = exam.score(asked, texts)
    accuracies = torch.tensor([float(item.correct) for item in scores]).view(candidates, len(examples)).mean(1)
    return accuracies, torch.tensor(likelihoods).view(candidates, len(examples)).sum(1) / (tokens / candidates)
