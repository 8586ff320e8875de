"""Answers that a policy gradient learns from: how they are drawn, what they are worth, how much each one counts.

There are two ways of drawing. ``written`` samples a few answers token by token. ``chosen`` lists all choices that a
prompt offers, each with its share q of the policy: the expected reward is then known, and no estimator is needed
(``exact``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pipeline.core.types import Example, Scorer
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.batch import Answer, Per
from pipeline.model.decoding.choose import continuations, lengths
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted, Base, Compute

# How the rewards of a prompt's answers become the weights of their log-probabilities: see ``Rollout.weights``.
Estimator = Literal["none", "rloo", "grpo", "exact"]


@dataclass(frozen=True)
class Shares:
    """All answers to a prompt, as the policy chooses among them: q_k ∝ exp(s_k log π_k).

    log_q: (answers,) float64. slopes: s, (answers,): one over the temperature and, where likelihoods are taken per unit
    of length, over the length. base: log q of the base model, (answers,); None where nothing is penalised.
    """

    log_q: Tensor
    slopes: Tensor
    base: Tensor | None = None

    @property
    def q(self) -> Tensor:
        return self.log_q.exp()

    @property
    def log_ratio(self) -> Tensor:
        """log(q / q_base), (answers,); zeros where the base model's shares are not known."""
        return torch.zeros_like(self.log_q) if self.base is None else self.log_q - self.base

    @property
    def kl(self) -> float:
        """KL(q ‖ q_base), in nats."""
        return float(self.q @ self.log_ratio)

    @property
    def entropy(self) -> float:
        """Of q, in nats."""
        return float(-(self.q @ self.log_q))


@dataclass(frozen=True)
class Drawn:
    """Answers to one prompt. shares: set where they are all that the policy can give."""

    answers: Sequence[Answer]
    shares: Shares | None = None


# From an attachment, prompts, and a generator (None: the most likely answer) to answers for each prompt.
Draw = Callable[[Attachment, Sequence[Example], torch.Generator | None], list[Drawn]]
# From examples and their answers, in the same order, to rewards; a right answer has 1, any other less than 0.
Reward = Callable[[Sequence[Example], Sequence[Answer]], Sequence[float]]


@dataclass(frozen=True)
class Rollout:
    """The answers to one prompt with their rewards, (answers,)."""

    prompt: Sequence[int]
    answers: Sequence[Answer]
    rewards: Tensor
    shares: Shares | None = None

    def mean(self, values: Tensor) -> float:
        """The mean of a value of each answer over the samples, or its expectation."""
        return float(values.mean()) if self.shares is None else float(self.shares.q @ values.double())

    @property
    def reward(self) -> float:
        """The mean reward of the samples, or the expected one."""
        return self.mean(self.rewards)

    @property
    def right(self) -> float:
        """The share of right answers."""
        return self.mean((self.rewards > 0).float())

    @property
    def mixed(self) -> bool:
        """Whether the answers differ in their rewards: where they do not, rloo and grpo have nothing to learn from."""
        return bool((self.rewards != self.rewards[0]).any())

    def weights(self, estimator: Estimator, kl_coefficient: float = 0.0) -> Tensor:
        """The weight of each answer's log-probability, (answers,): the weighted sum's gradient is, or estimates, that
        of the expected reward. With ``exact``, that of the expected reward less λ KL(q ‖ q_base)."""
        if estimator != "exact":
            return advantages(self.rewards, estimator) / len(self.answers)
        if self.shares is None:
            raise ValueError("expected answers with their shares, got samples: their reward can't be exact")
        # ∂/∂l_k Σ q r − λ KL = q_k (r'_k − Σ q r'), for l = s log π and r' = r − λ log(q / q_base)
        worth = self.rewards.double() - kl_coefficient * self.shares.log_ratio
        return (self.shares.slopes * self.shares.q * (worth - self.shares.q @ worth)).float()


def advantages(rewards: Tensor, estimator: Estimator) -> Tensor:
    """The advantage of each sample of one prompt, (samples,). rewards: (samples,)."""
    samples = len(rewards)
    if estimator == "none" or samples == 1:
        return rewards
    if estimator == "rloo":
        # r_i − mean of the others = (r_i − mean) · n / (n − 1): a baseline independent of sample i, hence unbiased
        return (rewards - rewards.mean()) * samples / (samples - 1)
    deviation = rewards.std(unbiased=False)
    return (rewards - rewards.mean()) / (deviation + 1e-6)


def rewarding(base: Base, score: Scorer, wrong: float) -> Reward:
    """The reward of Eq. 1: 1 for an answer that is correct, ``wrong`` for any other.

    An answer that was cut at the token limit, or that does not stand in the form that was asked for, is wrong whatever
    a reader finds in it: the last number of a cut text is right by accident, and must not be learnt.
    """

    def reward(examples: Sequence[Example], answers: Sequence[Answer]) -> list[float]:
        scores = score(examples, [base.text(answer.ids) for answer in answers])
        return [
            1.0 if item.correct and item.marked and answer.finished else wrong
            for item, answer in zip(scores, answers, strict=True)
        ]

    return reward


def written(base: Base, *, compute: Compute, max_new_tokens: int, samples: int, temperature: float) -> Draw:
    """Answers are written token by token; most likely ones at temperature 0 or without a generator."""

    def draw(attachment: Attachment, examples: Sequence[Example], generator: torch.Generator | None) -> list[Drawn]:
        sampling = None
        if generator is not None and temperature > 0:
            sampling = Sampling(generator=generator, samples=samples, temperature=temperature)
        prompts = [base.prompt_ids(example.messages) for example in examples]
        answers = generate(
            Adapted(base, compute, attachment), prompts, max_new_tokens=max_new_tokens, sampling=sampling
        )
        return [Drawn(several) for several in answers]

    return draw


def chosen(base: Base, per: Per, *, compute: Compute, temperature: float, penalised: bool, ended: bool = False) -> Draw:
    """The answer is one of the choices that the example offers, by likelihood at a temperature τ.

    Instead of a sample, all of them are returned with their shares q. The expected reward is then exact, and a choice
    that the policy hardly ever takes is learnt as well.

    per: what a log-likelihood is divided by. penalised: the base model's shares are wanted, too; they are computed once
        for each example. ended: see ``continuations``.
    """
    known: dict[str, Tensor] = {}  # log q of the base model, by example

    def shares(
        attachment: Attachment, examples: Sequence[Example], choices: Sequence[Sequence[Sequence[int]]]
    ) -> list[Shares]:
        prompts = [base.prompt_ids(example.messages) for example in examples]
        weighed = weigh(Adapted(base, compute, attachment), prompts, choices)
        found = []
        for example, several, weights in zip(examples, choices, weighed, strict=True):
            slopes = 1 / (temperature * torch.tensor(lengths(example, several, per), dtype=torch.float64))
            found.append(Shares((slopes * torch.tensor(weights, dtype=torch.float64)).log_softmax(0), slopes))
        return found

    def draw(attachment: Attachment, examples: Sequence[Example], generator: torch.Generator | None) -> list[Drawn]:
        choices = [continuations(base, example, ended=ended) for example in examples]
        found = shares(attachment, examples, choices)
        answers = [[Answer(tuple(ids), (), finished=True) for ids in several] for several in choices]
        if generator is None:
            return [Drawn([several[int(of.log_q.argmax())]]) for several, of in zip(answers, found, strict=True)]
        new = [place for place, example in enumerate(examples) if penalised and example.id not in known]
        if new:
            of_base = shares(Attachment(), [examples[place] for place in new], [choices[place] for place in new])
            known.update((examples[place].id, of.log_q) for place, of in zip(new, of_base, strict=True))
        return [
            Drawn(several, replace(of, base=known.get(example.id)))
            for example, several, of in zip(examples, answers, found, strict=True)
        ]

    return draw


def judged(base: Base, examples: Sequence[Example], drawn: Sequence[Drawn], reward: Reward) -> list[Rollout]:
    """Drawn answers with their rewards."""
    asked = [example for example, of_prompt in zip(examples, drawn, strict=True) for _ in of_prompt.answers]
    rewards: Iterator[float] = iter(reward(asked, [answer for of_prompt in drawn for answer in of_prompt.answers]))
    return [
        Rollout(
            prompt=base.prompt_ids(example.messages),
            answers=of_prompt.answers,
            rewards=torch.tensor([next(rewards) for _ in of_prompt.answers]),
            shares=of_prompt.shares,
        )
        for example, of_prompt in zip(examples, drawn, strict=True)
    ]
