"""REINFORCE with a KL penalty (Transformer², arXiv 2501.06252, Eq. 1), over whatever a learner trains.

    J(z) = E[ r(ŷ, y) · log π_z(ŷ | x) ] − λ KL(π_z ‖ π_base)

Answers are sampled from π_z, so that this is a policy gradient; the reward comes from a callable and is in [−1, 1]:
this file knows no task and no method. One step reads top to bottom: ``rollout``, ``advantages``, ``loss``, ``update``.

Rollouts are on the ids that were generated, the end-of-sequence token included; text is never tokenised again. The n
samples of a prompt are learnt from as one packed sequence that computes the prompt once (``core.packing``).

Deviations
1. The advantage is the reward less the mean of the prompt's other samples (``rloo``) by default. The paper's own
   estimator is ``none``; ``grpo`` divides by the group's standard deviation. Where the policy chooses among a few
   given answers, its expected reward is known, and no estimator is needed (``exact``).
2. The mean is over the answers of a step, and each answer counts the sum of its tokens' log-probabilities, as the
   formula has it (no division by length).
3. The KL is the mean over the sampled tokens, not the sum over each answer: its coefficient then means the same for
   short and long answers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.core.types import Example, Scorer
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.batch import Answer
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted, Base, Compute, decoder
from pipeline.model.forward.logprobs import Penalty, head_weight, policy_objective
from pipeline.training.packing import Group, answer_hidden, packed_batches

# An attachment, prompts, a generator (None: the most likely answer): to answers per prompt, samples of the policy or,
# with their probabilities, all it can give.
Draw = Callable[[Attachment, Sequence[Sequence[int]], torch.Generator | None], list[list[Answer]]]
# How an answer's reward becomes what its log-probability counts: see ``Rollout.weights``.
Estimator = Literal["none", "rloo", "grpo", "exact"]
# Examples and the texts of their answers, in the same order, to rewards in [−1, 1].
Reward = Callable[[Sequence[Example], Sequence[str]], Sequence[float]]


class Optimisation(Section):
    """How a learner is trained.

    steps: optimizer steps. prompts: prompts per step. temperature: of the policy that is drawn from; 0 is the public
    code's choice and no policy gradient. learning_rate, weight_decay: AdamW's. clip_norm: of the gradient.
    schedule: of the learning rate. kl_coefficients: λ, each tried, chosen on validation. kl_estimator: ``full``
    vocabulary or ``k3``. validate_every: steps. validation_prompts: how many, greedily. patience: validations without
    a new best before stopping.
    """

    steps: int
    prompts: int
    temperature: float
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "cosine"]
    warmup_steps: int
    clip_norm: float
    kl_coefficients: tuple[float, ...]
    kl_estimator: Literal["full", "k3"]
    validate_every: int
    validation_prompts: int
    patience: int


class Reinforce(Optimisation, at="reinforce"):
    """The settings of the experts' training. samples: answers per prompt. advantage: see Deviations."""

    samples: int
    advantage: Literal["none", "rloo", "grpo"]


class Learner(Protocol):
    """What this trainer needs of a thing to train."""

    def parameters(self) -> list[nn.Parameter]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...

    def sampling(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        """Attached for decoding."""
        ...

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        """Attached for one forward and backward pass."""
        ...


Trained = TypeVar("Trained", bound=Learner)


@dataclass(frozen=True)
class Rollout:
    """The answers to one prompt with their rewards, (samples,), and, where they are all that the policy could have
    given instead of samples, the policy's probability of each, (answers,)."""

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
        """What the gradient of each answer's log-probability counts: their sum is, or estimates, that of the reward."""
        if estimator != "exact":
            return advantages(self.rewards, estimator) / len(self.answers)
        if self.probabilities is None:
            raise ValueError("expected answers with their probabilities, got samples: their reward can't be exact")
        # ∇ Σ q_k r_k = Σ q_k (r_k − r̄) ∇ log π_k, for q_k = π_k / Σ_j π_j (at a temperature, times 1/τ)
        return self.probabilities * (self.rewards - self.reward)


@dataclass
class Run:
    """What a training has come to: also what is saved to resume it."""

    step: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_validation: float = -math.inf
    best_step: int = 0
    since_best: int = 0


def rewarding(score: Scorer) -> Reward:
    """The reward of Eq. 1: 1 for an answer that ``score`` calls correct, −1 for any other."""

    def reward(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        return [1.0 if item.correct else -1.0 for item in score(examples, answers)]

    return reward


def written(base: Base, *, compute: Compute, max_new_tokens: int, samples: int, temperature: float) -> Draw:
    """Answers are written, token by token."""

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

    All of them are returned with their probability q(k), instead of a sample: their expected reward is then exact, and
    a category that the policy hardly ever names is learnt as well.
    """

    def draw(
        attachment: Attachment, prompts: Sequence[Sequence[int]], generator: torch.Generator | None
    ) -> list[list[Answer]]:
        found = weigh(Adapted(base, compute, attachment), prompts, [names] * len(prompts))
        likelihoods = torch.tensor(found, dtype=torch.float64)
        if generator is None:
            return [[Answer(tuple(names[k]), (), finished=True)] for k in likelihoods.argmax(1).tolist()]
        return [
            [Answer(tuple(name), (), finished=True, probability=q) for name, q in zip(names, row, strict=True)]
            for row in (likelihoods / temperature).softmax(1).tolist()
        ]

    return draw


def rollout(
    base: Base,
    learner: Learner,
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
    """What each sample of one prompt counts. rewards: (samples,). Returns (samples,)."""
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
    settings: Optimisation,
    advantage: Estimator,
    kl_coefficient: float,
    compute: Compute,
) -> dict[str, float]:
    """Add the gradient of −J to the learner's parameters, micro-batch by micro-batch; returns what was measured."""
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


def learning_rate(step: int, settings: Optimisation) -> float:
    """Of the step with this number, from 1: linear warm-up, then constant or a cosine to zero."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "constant":
        return settings.learning_rate * warm
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.steps))


def update(learner: Learner, optimizer: torch.optim.Optimizer, *, step: int, settings: Optimisation) -> float:
    """One clipped AdamW step; returns the gradient's norm before clipping."""
    norm = float(nn.utils.clip_grad_norm_(learner.parameters(), settings.clip_norm))
    if not math.isfinite(norm):
        raise UserError(
            f"expected a finite gradient at step {step}, got {norm}; lower the learning rate or set compute.dtype "
            "to float32 in params.yaml"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def accuracy(
    base: Base,
    learner: Learner,
    examples: Sequence[Example],
    reward: Reward,
    *,
    draw: Draw,
) -> float:
    """Share of greedy answers that are rewarded with more than zero."""
    with learner.sampling(base.model) as attachment:
        answers = draw(attachment, [base.prompt_ids(example.messages) for example in examples], None)
    rewards = reward(examples, [base.text(answer.ids) for (answer,) in answers])
    return sum(value > 0 for value in rewards) / len(examples)


def order_of(step: int, examples: int, per_step: int, seed: int) -> list[int]:
    """Which examples a step (from 1) uses: shuffled epochs one after the other, known without running the others."""
    chosen = []
    for place in range((step - 1) * per_step, step * per_step):
        epoch, offset = divmod(place, examples)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        chosen.append(int(torch.randperm(examples, generator=generator)[offset]))
    return chosen


def train(
    base: Base,
    make_learner: Callable[[], Trained],
    *,
    train_examples: Sequence[Example],
    validation_examples: Sequence[Example],
    reward: Reward,
    settings: Optimisation,
    compute: Compute,
    draw: Draw,
    advantage: Estimator,
    seed: int,
    checkpoints: Checkpoints,
) -> tuple[Trained, list[dict[str, Any]]]:
    """Train once per KL coefficient; returns the learner at the step that did best on validation, and the curve."""
    if not train_examples or not validation_examples:
        raise UserError("expected examples to train and to validate on, got none; run 'dvc repro prepare'")
    chosen: tuple[Trained, Run, float] | None = None
    curve: list[dict[str, Any]] = []
    for coefficient in settings.kl_coefficients:
        learner = make_learner()
        run = _train_once(
            base,
            learner,
            train_examples=train_examples,
            validation_examples=validation_examples[: settings.validation_prompts],
            reward=reward,
            settings=settings,
            kl_coefficient=coefficient,
            compute=compute,
            draw=draw,
            advantage=advantage,
            seed=seed,
            checkpoints=checkpoints,
        )
        learner.load_state(run.best)
        curve += run.curve
        if chosen is None or run.best_validation > chosen[1].best_validation:
            chosen = (learner, run, coefficient)
    assert chosen is not None
    learner, run, coefficient = chosen
    for row in curve:
        row["chosen"] = row["step"] == run.best_step and row["kl_coefficient"] == coefficient
    return learner, curve


def _train_once(
    base: Base,
    learner: Learner,
    *,
    train_examples: Sequence[Example],
    validation_examples: Sequence[Example],
    reward: Reward,
    settings: Optimisation,
    kl_coefficient: float,
    compute: Compute,
    draw: Draw,
    advantage: Estimator,
    seed: int,
    checkpoints: Checkpoints,
) -> Run:
    optimizer = torch.optim.AdamW(
        learner.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
    )
    name = f"kl-{kl_coefficient}"
    run = _resume(checkpoints, name, learner, optimizer) or Run()
    with bar(f"train, λ = {kl_coefficient}", settings.steps) as drawn:
        drawn.advance(run.step)
        while run.step <= settings.steps and run.since_best <= settings.patience:
            if run.step > 0:
                step = run.step
                # A generator of its own for every step: a resumed run draws what an undisturbed one would.
                generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
                examples = [train_examples[i] for i in order_of(step, len(train_examples), settings.prompts, seed)]
                rollouts = rollout(
                    base,
                    learner,
                    examples,
                    reward,
                    draw=draw,
                    generator=generator,
                )
                measured = loss_and_gradient(
                    base,
                    learner,
                    rollouts,
                    settings=settings,
                    advantage=advantage,
                    kl_coefficient=kl_coefficient,
                    compute=compute,
                )
                norm = update(learner, optimizer, step=step, settings=settings)
                answers = [answer for item in rollouts for answer in item.answers]
                row: dict[str, Any] = {
                    "step": step,
                    "train": sum(item.reward for item in rollouts) / len(rollouts),
                    "tokens": sum(len(answer.ids) for answer in answers) / len(answers),
                    "finished": sum(answer.finished for answer in answers) / len(answers),
                    "gradient_norm": norm,
                    **measured,
                }
                drawn.advance(1, f"reward {row['train']:+.2f}")
            else:
                row = {"step": 0, "train": None}
            row |= {"objective": "reinforce", "kl_coefficient": kl_coefficient, "validation": None}
            if run.step % settings.validate_every == 0 or run.step == settings.steps:
                row["validation"] = accuracy(
                    base,
                    learner,
                    validation_examples,
                    reward,
                    draw=draw,
                )
                if row["validation"] > run.best_validation:
                    run.best = {key: tensor.clone() for key, tensor in learner.state().items()}
                    run.best_validation, run.best_step, run.since_best = row["validation"], run.step, 0
                else:
                    run.since_best += 1
            run.curve.append(row)
            run.step += 1
            _save(checkpoints, name, learner, optimizer, run)
    return run


def _save(checkpoints: Checkpoints, name: str, learner: Learner, optimizer: torch.optim.Optimizer, run: Run) -> None:
    tensors = {f"learner.{key}": tensor for key, tensor in learner.state().items()}
    tensors |= {f"best.{key}": tensor for key, tensor in run.best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    meta = {
        "step": run.step,
        "curve": run.curve,
        "best_validation": run.best_validation,
        "best_step": run.best_step,
        "since_best": run.since_best,
    }
    checkpoints.save(name, tensors, meta)


def _resume(checkpoints: Checkpoints, name: str, learner: Learner, optimizer: torch.optim.Optimizer) -> Run | None:
    saved = checkpoints.load(name)
    if saved is None:
        return None
    tensors, meta = saved
    learner.load_state({key.removeprefix("learner."): t for key, t in tensors.items() if key.startswith("learner.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, entry = key.split(".", 2)
            state.setdefault(int(index), {})[entry] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    best = {key.removeprefix("best."): t for key, t in tensors.items() if key.startswith("best.")}
    return Run(best=best, **meta)
