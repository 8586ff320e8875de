"""REINFORCE with a KL penalty (Transformer², arXiv 2501.06252, Eq. 1), for any learner.

    J(z) = E[ r(ŷ, y) · log π_z(ŷ | x) ] − λ KL(π_z ‖ π_base)

Answers are sampled from π_z, so this is a policy gradient. The reward comes from a callable and is in [−1, 1]: this
file knows no task and no method. A step reads from top to bottom: answers are drawn and judged
(``pipeline.training.rollouts``), then ``loss_and_gradient``; the loop around it is ``pipeline.training.loop``.

A rollout is the ids that were generated, the end-of-sequence token included; text is never tokenised again. The samples
of a prompt are learnt from as one packed sequence that computes the prompt once (``pipeline.training.packing``).

Deviations
1. The advantage of a sample is its reward less the mean of the prompt's other samples (``rloo``) by default. The
   paper's own estimator is ``none``; ``grpo`` divides by the group's standard deviation. Where the policy chooses among
   a few given answers, its expected reward is known and no estimator is needed (``exact``).
2. The mean is over the answers of a step, and each answer counts the sum of its tokens' log-probabilities, as the
   formula has it (no division by length).
3. The KL is the mean over the sampled tokens, not the sum over each answer: its coefficient then means the same for
   short and for long answers. Among given answers it is that of their shares, in closed form.
4. The policy whose gradient is taken is the one that is sampled, π^(1/τ) at a temperature τ. (The public code takes the
   most likely answers and their gradient at 1.)
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.core import processes
from pipeline.core.progress import show_markdown
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Base, Compute, decoder
from pipeline.model.forward.logprobs import Penalty, policy_objective
from pipeline.training.layout import Group
from pipeline.training.loop import Data, Learner, Optimisation, Row, Run, Training, optimise, order_of, seeded_shuffles
from pipeline.training.packing import Packed, answer_hidden, packed_batches
from pipeline.training.recipes import Recipe
from pipeline.training.rollouts import Draw, Estimator, Reward, Rollout, judged
from pipeline.training.screening import Screen
from pipeline.training.units import agreement, summed


class Reinforce(Optimisation, at="reinforce"):
    """How a learner is trained by its rewards.

    samples: answers to each prompt of a step.
    temperature: of the policy that is sampled; 0 takes the most likely answer, which is the public code's choice and no
        policy gradient.
    gradient_temperature: of the policy whose gradient is taken (default: the one that is sampled, see Deviation 4).
    wrong_reward: of an answer that is not right, has no mark, or was cut; the paper has −1, and −0.1 for pictures.
    advantage: see Deviation 1.
    kl_coefficients: λ; each is tried, and validation chooses.
    kl_estimator: over the ``full`` vocabulary, or ``k3`` at the sampled token.
    screen: only prompts that are answered right at some times and wrong at others are learnt from; see ``screening``.
    """

    samples: int
    temperature: float = Field(ge=0)
    gradient_temperature: float | None = Field(default=None, gt=0)
    wrong_reward: float = Field(default=-1.0, lt=1)
    advantage: Literal["none", "rloo", "grpo"]
    kl_coefficients: tuple[float, ...] = Field(min_length=1)
    kl_estimator: Literal["full", "k3"]
    screen: Screen | None = None

    @property
    def learnt_at(self) -> float:
        """The temperature of the policy whose gradient is taken; 1 where the most likely answers are learnt from."""
        return self.gradient_temperature or self.temperature or 1.0


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

    draw: how answers come about. reward: how they are judged.
    """

    draw: Draw
    reward: Reward


def rollout(
    base: Base,
    learner: Sampled,
    examples: Sequence[Example],
    questions: Questions,
    *,
    generator: torch.Generator,
) -> list[Rollout]:
    """Draw answers from π_z and have them judged."""
    with learner.sampling(base.model) as attachment:
        drawn = questions.draw(attachment, examples, generator)
    return judged(base, examples, drawn, questions.reward)


class Whole(NamedTuple):
    """How many prompts a step has, and how many tokens their answers have together."""

    prompts: int
    tokens: int

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> "Whole":
        return cls(len(rollouts), sum(len(answer.ids) for item in rollouts for answer in item.answers))


def loss_and_gradient(
    base: Base,
    learner: Learner,
    rollouts: Sequence[Rollout],
    *,
    settings: Reinforce,
    kl_coefficient: float,
    compute: Compute,
    whole: Whole | None = None,
) -> dict[str, float]:
    """Add the gradient of −J to the learner's parameters, micro-batch by micro-batch; J's parts as measured.

    whole: what the rollouts are a part of, where they are not all of a step; J's parts then are this part's share.
    """
    exact = rollouts[0].shares is not None
    advantage: Estimator = "exact" if exact else settings.advantage
    prompts, tokens = whole or Whole.of(rollouts)
    groups = [Group(item.prompt, [answer.ids for answer in item.answers]) for item in rollouts]
    weights = [item.weights(advantage, kl_coefficient) / prompts for item in rollouts]
    penalised = kl_coefficient > 0 and not exact  # the shares of given answers carry their penalty already
    sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0}
    with learner.learning(base.model) as attachment:  # what it lets prompts share
        batches = list(packed_batches(groups, attachment, batch_tokens=compute.batch_tokens, device=base.device))
    halves = _Halves(learner, len(batches))
    for batch, packed in batches:
        halves.begin()
        weighted = torch.cat([weights[index] for index in batch]).to(base.device)[packed.answer]
        if not penalised and not bool(weighted.any()):
            continue  # every sample of these prompts was rewarded alike: nothing to learn from
        penalty = _penalty(base, packed, kl_coefficient / tokens, settings) if penalised else None
        with learner.learning(base.model) as attachment:
            objective = policy_objective(
                answer_hidden(decoder(base.model), packed, attachment),
                base.lm_head,
                packed.target,
                packed.state,
                advantage=weighted,
                penalty=penalty,
                temperature=1.0 if exact else settings.learnt_at,
            )
            objective.loss.backward()
        sums["loss"] += float(objective.loss.detach())
        sums["kl"] += float(objective.kl.sum()) / tokens
        sums["entropy"] += float(objective.entropy.sum()) / tokens
    if exact:
        shares = [item.shares for item in rollouts if item.shares is not None]
        sums["kl"] = sum(each.kl for each in shares) / prompts
        sums["entropy"] = sum(each.entropy for each in shares) / prompts
    return sums | halves.agreement()


def _penalty(base: Base, packed: Packed, coefficient: float, settings: Reinforce) -> Penalty:
    with torch.no_grad():
        reference = answer_hidden(decoder(base.model), packed, Attachment())
    return Penalty(reference, coefficient, settings.kl_estimator)


class _Halves:
    """How far the gradients of the two halves of a step agree: how much of a step is signal.

    The halves are of micro-batches, each with prompts of its own.
    """

    def __init__(self, learner: Learner, batches: int) -> None:
        self.parameters, self.middle, self.begun = list(learner.parameters()), batches // 2, 0
        self.first: Tensor | None = None

    def begin(self) -> None:
        """Called before every micro-batch."""
        if self.begun == self.middle > 0:
            self.first = self._gradient()
        self.begun += 1

    def _gradient(self) -> Tensor:
        parts = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.parameters]
        return torch.cat([part.flatten().double() for part in parts])

    def agreement(self) -> dict[str, float]:
        """The cosine of the two halves' gradients, as ``cosine``; nothing where one of them is zero."""
        if self.first is None:
            return {}
        return agreement(self.first, self._gradient() - self.first)


def accuracy(base: Base, learner: Sampled, questions: Questions, units: int = 1) -> float:
    """Share of the validation prompts whose greedy answer is right. units: see ``Compute``."""
    parts = processes.parts(questions.validation, units)
    group = processes.joined(len(parts))

    def right(examples: Sequence[Example]) -> float:
        with learner.sampling(base.model) as attachment:
            drawn = questions.draw(attachment, examples, None)
        return sum(item.right for item in judged(base, examples, drawn, questions.reward))

    counts = group.gathered(len(parts), {unit: right(parts[unit]) for unit in group.own(len(parts))})
    return sum(counts) / len(questions.validation)


def _counted(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What is counted of some rollouts, to be added to what is counted of others."""
    answers = [answer for item in rollouts for answer in item.answers]
    return {
        "prompts": len(rollouts),
        "answers": len(answers),
        "tokens": sum(len(answer.ids) for answer in answers),
        "finished": sum(answer.finished for answer in answers),
        "mixed": sum(item.mixed for item in rollouts),
        "reward": sum(item.reward for item in rollouts),
        "right": sum(item.right for item in rollouts),
    }


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
        parts = processes.parts(places, self.compute.units)
        group = processes.joined(len(parts))
        drawn = {unit: self._drawn(step, unit, parts) for unit in group.own(len(parts))}
        counted = group.gathered(len(parts), {unit: _counted(rollouts) for unit, rollouts in drawn.items()})
        counts = {name: sum(one[name] for one in counted) for name in counted[0]}
        exact = any(item.shares is not None for rollouts in drawn.values() for item in rollouts)
        whole = Whole(int(counts["prompts"]), int(counts["tokens"]))

        def one(unit: int) -> dict[str, float]:
            return loss_and_gradient(
                self.base,
                self.learner,
                drawn[unit],
                settings=self.settings,
                kl_coefficient=self.kl_coefficient,
                compute=self.compute,
                whole=whole,
            )

        measured = summed(self.learner, group, len(parts), one)
        of_answers = {name: counts[name] / counts["answers"] for name in ("tokens", "finished")}
        of_answers["mixed"] = counts["mixed"] / whole.prompts
        return {
            "train": counts["reward"] / whole.prompts,
            "right": counts["right"] / whole.prompts,
            **({} if exact else of_answers),  # of given answers they say nothing
            **{name: sum(part[name] for part in measured) for name in ("loss", "kl", "entropy")},
            **{name: value for name, value in measured[-1].items() if name == "cosine"},
        }

    def _drawn(self, step: int, unit: int, parts: Sequence[Sequence[int]]) -> list[Rollout]:
        """The answers of a unit of a step."""
        # A generator of its own for every step and unit: a resumed run draws what an undisturbed one would.
        seed = (self.seed * 1_000_003 + step) * len(parts) + unit
        examples = [self.questions.train[place] for place in parts[unit]]
        generator = torch.Generator().manual_seed(seed)
        return rollout(self.base, self.learner, examples, self.questions, generator=generator)

    def row(self, measured: Mapping[str, float], norm: float) -> Row:
        return {**measured, "gradient_norm": norm}

    def validate(self) -> Row:
        return {"validation": accuracy(self.base, self.learner, self.questions, self.compute.units)}

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
    """The share of all answers of a training that were right; warns if none was."""
    shares = [row["right"] for row in rows if row["step"] > 0]
    share = sum(shares) / len(shares)
    if share == 0:
        warning = (
            f"expected some answer to '{task}' to be rewarded, got none in {len(shares)} steps; the expert changes "
            "nothing: give the task easier prompts or longer answers, or look at its scorer"
        )
        print(f"warning: {warning}", file=sys.stderr)
        show_markdown("warning", warning)
    return share
