"""REINFORCE with a KL penalty (Transformer², arXiv 2501.06252, Eq. 1), for any learner.

    J(z) = E[ r(ŷ, y) · log π_z(ŷ | x) ] − λ KL(π_z ‖ π_base)

Answers are sampled from π_z, so this is a policy gradient. The reward comes from a callable and is in [−1, 1]: this
file knows no task and no method. A step reads from top to bottom: ``rollout``, ``advantages``, ``loss_and_gradient``;
the loop around it is ``pipeline.training.loop``.

A rollout is the ids that were generated, the end-of-sequence token included; text is never tokenised again. The samples
of a prompt are learnt from as one packed sequence that computes the prompt once (``pipeline.training.packing``).

Deviations
1. The advantage of a sample is its reward less the mean of the prompt's other samples (``rloo``) by default. The
   paper's own estimator is ``none``; ``grpo`` divides by the group's standard deviation. Where the policy chooses among
   a few given answers, its expected reward is known and no estimator is needed (``exact``).
2. The mean is over the answers of a step, and each answer counts the sum of its tokens' log-probabilities, as the
   formula has it (no division by length).
3. The KL is the mean over the sampled tokens, not the sum over each answer: its coefficient then means the same for
   short and for long answers.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.core.progress import show_markdown
from pipeline.core.types import Example, Scorer
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.batch import Answer
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted, Base, Compute, decoder
from pipeline.model.forward.logprobs import Penalty, head_weight, policy_objective
from pipeline.training.layout import Group
from pipeline.training.loop import Data, Learner, Optimisation, Row, Run, Training, optimise, order_of, seeded_shuffles
from pipeline.training.packing import answer_hidden, packed_batches
from pipeline.training.recipes import Recipe

# From an attachment, prompts, and a generator (None: the most likely answer) to answers for each prompt: samples of the
# policy, or, with their probabilities, all answers it can give.
Draw = Callable[[Attachment, Sequence[Sequence[int]], torch.Generator | None], list[list[Answer]]]
# How the rewards of a prompt's answers become the weights of their log-probabilities: see ``Rollout.weights``.
Estimator = Literal["none", "rloo", "grpo", "exact"]
# From examples and the texts of their answers, in the same order, to rewards in [−1, 1].
Reward = Callable[[Sequence[Example], Sequence[str]], Sequence[float]]


class Reinforce(Optimisation, at="reinforce"):
    """How a learner is trained by its rewards.

    samples: answers to each prompt of a step.
    temperature: of the policy that is sampled; 0 takes the most likely answer, which is the public code's choice and no
        policy gradient.
    advantage: see Deviation 1.
    kl_coefficients: λ; each is tried, and validation chooses.
    kl_estimator: over the ``full`` vocabulary, or ``k3`` at the sampled token.
    """

    samples: int
    temperature: float
    advantage: Literal["none", "rloo", "grpo"]
    kl_coefficients: tuple[float, ...] = Field(min_length=1)
    kl_estimator: Literal["full", "k3"]


class Reinforced(Recipe):
    """The recipe of a row that is trained by policy gradient."""

    objective = "reinforce"
    training: Reinforce


class Sampled(Learner, Protocol):
    """A learner that can be sampled from."""

    def sampling(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        """Attached for decoding."""
        ...


Trained = TypeVar("Trained", bound=Sampled)


@dataclass(frozen=True)
class Questions(Data):
    """Prompts whose answers are rewarded.

    draw: how answers come about. reward: how they are judged. advantage: ``exact`` where ``draw`` gives all answers.
    """

    draw: Draw
    reward: Reward
    advantage: Estimator


@dataclass(frozen=True)
class Rollout:
    """The answers to one prompt with their rewards, (samples,).

    probabilities: the policy's probability of each answer, (answers,); set only when all answers are enumerated.
    """

    example: Example
    prompt: Sequence[int]
    answers: Sequence[Answer]
    rewards: Tensor
    probabilities: Tensor | None = None

    @property
    def reward(self) -> float:
        """The mean reward of the samples, or the expected one."""
        if self.probabilities is None:
            return float(self.rewards.mean())
        return float(self.probabilities @ self.rewards)

    def weights(self, estimator: Estimator) -> Tensor:
        """The weight of each answer's log-probability, (answers,): the weighted sum's gradient is, or estimates, that
        of the expected reward."""
        if estimator != "exact":
            return advantages(self.rewards, estimator) / len(self.answers)
        if self.probabilities is None:
            raise ValueError("expected answers with their probabilities, got samples: their reward can't be exact")
        # ∇ Σ q_k r_k = Σ q_k (r_k − r̄) ∇ log π_k, for q_k = π_k / Σ_j π_j (at a temperature, times 1/τ)
        return self.probabilities * (self.rewards - self.reward)


def rewarding(score: Scorer) -> Reward:
    """The reward of Eq. 1: 1 for an answer that ``score`` calls correct, −1 for any other."""

    def reward(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        return [1.0 if item.correct else -1.0 for item in score(examples, answers)]

    return reward


def written(base: Base, *, compute: Compute, max_new_tokens: int, samples: int, temperature: float) -> Draw:
    """Answers are written token by token; most likely ones at temperature 0 or without a generator."""

    def draw(
        attachment: Attachment, prompts: Sequence[Sequence[int]], generator: torch.Generator | None
    ) -> list[list[Answer]]:
        sampling = None
        if generator is not None and temperature > 0:
            sampling = Sampling(generator=generator, samples=samples, temperature=temperature)
        adapted = Adapted(base, compute, attachment)
        return generate(adapted, prompts, max_new_tokens=max_new_tokens, sampling=sampling)

    return draw


def chosen_among(base: Base, names: Sequence[Sequence[int]], *, compute: Compute, temperature: float) -> Draw:
    """The answer is one of a few given ones, by likelihood at a temperature τ: q(k) ∝ π(name_k)^(1/τ).

    Instead of a sample, all of them are returned with their probability q(k). The expected reward is then exact, and an
    answer that the policy hardly ever gives is learnt as well.

    names: the given answers, as token ids.
    """

    def draw(
        attachment: Attachment, prompts: Sequence[Sequence[int]], generator: torch.Generator | None
    ) -> list[list[Answer]]:
        weighed = weigh(Adapted(base, compute, attachment), prompts, [names] * len(prompts))
        likelihoods = torch.tensor(weighed, dtype=torch.float64)
        if generator is None:
            return [[Answer(tuple(names[k]), (), finished=True)] for k in likelihoods.argmax(1).tolist()]
        return [
            [Answer(tuple(name), (), finished=True, probability=q) for name, q in zip(names, row, strict=True)]
            for row in (likelihoods / temperature).softmax(1).tolist()
        ]

    return draw


def rollout(
    base: Base,
    learner: Sampled,
    examples: Sequence[Example],
    reward: Reward,
    *,
    draw: Draw,
    generator: torch.Generator,
) -> list[Rollout]:
    """Sample answers from π_z and have them judged."""
    prompts = [base.prompt_ids(example.messages) for example in examples]
    with learner.sampling(base.model) as attachment:
        answers = draw(attachment, prompts, generator)
    asked = [example for example, group in zip(examples, answers, strict=True) for _ in group]
    rewards = iter(reward(asked, [base.text(answer.ids) for group in answers for answer in group]))
    rollouts = []
    for example, prompt, group in zip(examples, prompts, answers, strict=True):
        shares = [answer.probability for answer in group if answer.probability is not None]
        probabilities = torch.tensor(shares) if shares else None
        rollouts.append(Rollout(example, prompt, group, torch.tensor([next(rewards) for _ in group]), probabilities))
    return rollouts


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


def loss_and_gradient(
    base: Base,
    learner: Learner,
    rollouts: Sequence[Rollout],
    *,
    settings: Reinforce,
    advantage: Estimator,
    kl_coefficient: float,
    compute: Compute,
) -> dict[str, float]:
    """Add the gradient of −J to the learner's parameters, micro-batch by micro-batch; J's parts as measured."""
    tokens = sum(len(answer.ids) for item in rollouts for answer in item.answers)
    groups = [Group(item.prompt, [answer.ids for answer in item.answers]) for item in rollouts]
    weights = [item.weights(advantage) / len(rollouts) for item in rollouts]
    weight = head_weight(base.model)
    sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0}
    with learner.learning(base.model) as attachment:  # what it lets prompts share
        batches = list(packed_batches(groups, attachment, batch_tokens=compute.batch_tokens, device=base.device))
    for batch, packed in batches:
        weighted = torch.cat([weights[index] for index in batch]).to(base.device)[packed.answer]
        if kl_coefficient == 0 and not bool(weighted.any()):
            continue  # every sample of these prompts was rewarded alike: nothing to learn from
        penalty = None
        if kl_coefficient > 0:
            with torch.no_grad():
                reference = answer_hidden(decoder(base.model), packed, Attachment())
            penalty = Penalty(reference, kl_coefficient / tokens, settings.kl_estimator)
        with learner.learning(base.model) as attachment:
            objective = policy_objective(
                answer_hidden(decoder(base.model), packed, attachment),
                weight,
                packed.target,
                packed.state,
                advantage=weighted,
                penalty=penalty,
            )
            objective.loss.backward()
        sums["loss"] += float(objective.loss.detach())
        sums["kl"] += float(objective.kl.sum()) / tokens
        sums["entropy"] += float(objective.entropy.sum()) / tokens
    return sums


def accuracy(base: Base, learner: Sampled, examples: Sequence[Example], reward: Reward, *, draw: Draw) -> float:
    """Share of greedy answers that are rewarded with more than zero."""
    with learner.sampling(base.model) as attachment:
        answers = draw(attachment, [base.prompt_ids(example.messages) for example in examples], None)
    rewards = reward(examples, [base.text(answer.ids) for (answer,) in answers])
    return sum(value > 0 for value in rewards) / len(examples)


class _ExpectedReward:
    """Eq. 1, as the loop wants it: the gradient of a step is of freshly sampled answers, the reward validates."""

    def __init__(
        self,
        base: Base,
        learner: Sampled,
        questions: Questions,
        *,
        compute: Compute,
        training: Training[Reinforce],
        kl_coefficient: float,
    ) -> None:
        self.base, self.learner, self.questions, self.compute = base, learner, questions, compute
        self.settings, self.seed, self.kl_coefficient = training.settings, training.seed, kl_coefficient
        self.facts = {"objective": "reinforce", "kl_coefficient": kl_coefficient}
        self.shuffle = seeded_shuffles(len(questions.train), training.seed)

    def gradient(self, step: int) -> dict[str, float]:
        asked = self.questions
        places = order_of(step, self.settings.batch, len(asked.train), self.shuffle)
        rollouts = rollout(
            self.base,
            self.learner,
            [asked.train[place] for place in places],
            asked.reward,
            draw=asked.draw,
            # A generator of its own for every step: a resumed run draws what an undisturbed one would.
            generator=torch.Generator().manual_seed(self.seed * 1_000_003 + step),
        )
        measured = loss_and_gradient(
            self.base,
            self.learner,
            rollouts,
            settings=self.settings,
            advantage=asked.advantage,
            kl_coefficient=self.kl_coefficient,
            compute=self.compute,
        )
        answers = [answer for item in rollouts for answer in item.answers]
        return {
            "train": sum(item.reward for item in rollouts) / len(rollouts),
            "tokens": sum(len(answer.ids) for answer in answers) / len(answers),
            "finished": sum(answer.finished for answer in answers) / len(answers),
            **measured,
        }

    def row(self, measured: Mapping[str, float], norm: float) -> Row:
        return {**measured, "gradient_norm": norm}

    def validate(self) -> Row:
        asked = self.questions
        return {"validation": accuracy(self.base, self.learner, asked.validation, asked.reward, draw=asked.draw)}

    def merit(self, validated: Row) -> tuple[float, ...]:
        return (validated["validation"],)


def train(
    base: Base,
    begin: Callable[[], Trained],
    questions: Questions,
    *,
    compute: Compute,
    training: Training[Reinforce],
) -> tuple[Trained, list[Row]]:
    """Train once for each KL coefficient; the learner whose best state did best on validation, and the curve of all.

    begin: makes an untrained learner, the same one at every call.
    """
    questions.required()
    chosen: tuple[Trained, Run] | None = None
    runs: list[Run] = []
    for coefficient in training.settings.kl_coefficients:
        learner = begin()
        objective = _ExpectedReward(
            base, learner, questions, compute=compute, training=training, kl_coefficient=coefficient
        )
        runs.append(optimise(learner, objective, training=training, name=f"reinforce-{coefficient}"))
        if chosen is None or runs[-1].best_row["validation"] > chosen[1].best_row["validation"]:
            chosen = (learner, runs[-1])
    assert chosen is not None
    learner, best = chosen
    return learner, [row for run in runs for row in run.rows(chosen=run is best)]


def share_rewarded(rows: Sequence[Row], task: str) -> float:
    """The share of all sampled answers that were rewarded, of a curve whose rewards are 1 or −1; warns if none was."""
    means = [row["train"] for row in rows if row["step"] > 0]
    share = sum((mean + 1) / 2 for mean in means) / len(means)
    if share == 0:
        warning = (
            f"expected some answer to '{task}' to be rewarded, got none in {len(means)} steps; the expert changes "
            "nothing: give the task easier prompts or longer answers, or look at its scorer"
        )
        print(f"warning: {warning}", file=sys.stderr)
        show_markdown("warning", warning)
    return share
