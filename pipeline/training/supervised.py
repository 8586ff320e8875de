"""Next-token prediction on reference answers, for any learner over a frozen base.

The loss of an example is the mean, over its answer's tokens (the end-of-sequence token included), of −log p in nats. A
batch's loss is the mean over its examples, plus what the learner itself adds. The language-model head is run on answer
positions only, so no (batch, seq, vocabulary) tensor exists.

The state of lowest validation loss is kept or, where the caller measures something, the state that measures best. The
loop around a step is ``pipeline.training.loop``.

**Deviations**
1. Examples weigh the same, not tokens: skills whose answers are long would otherwise outweigh those whose answers
   are a number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline.core import processes
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Base, Compute, decoder
from pipeline.model.forward.lm_head import LmHead
from pipeline.model.forward.logprobs import policy_objective, token_logprobs
from pipeline.training.layout import Group
from pipeline.training.loop import Data, Learner, Optimisation, Row, Training, optimise, order_of, successive_shuffles
from pipeline.training.packing import Packed, answer_hidden, packed_batches
from pipeline.training.recipes import Recipe
from pipeline.training.units import summed


class Answering(Optimisation):
    """How something is trained on reference answers.

    max_tokens: of a prompt with its answer; what is beyond is cut off, and a prompt that leaves none for its answer is
        left out. None: all are read.
    """

    max_tokens: int | None = Field(default=None, ge=1)


class Supervised(Recipe):
    """The recipe of a row that is trained on reference answers."""

    objective = "next_token"
    training: Answering


class Trainable(Learner, Protocol):
    """A learner that can be trained on answers."""

    def extra_loss(self) -> Tensor | None:
        """What joins the loss of the last forward pass, as a mean over its examples; None where nothing does."""
        ...


def encode(base: Base, examples: Sequence[Example], max_tokens: int | None = None) -> list[Group]:
    """Examples as token ids: a prompt and its one answer each; an example's row is its index.

    max_tokens: see ``Answering``. UserError where it leaves nothing.
    """
    groups = []
    for row, example in enumerate(examples):
        prompt, answer = base.prompt_ids(example.messages), base.answer_ids(example.target)
        if max_tokens is not None:
            answer = answer[: max(0, max_tokens - len(prompt))]
        if answer:
            groups.append(Group(prompt, [answer], row))
    if examples and not groups:
        raise UserError(
            f"expected prompts of fewer than {max_tokens} tokens, got none; raise 'max_tokens' of the training"
        )
    return groups


def answer_losses(packed: Packed, logprobs: Tensor) -> Tensor:
    """Nats per answer token of each answer of a batch, (answers,). logprobs: (N,) of the answers' tokens."""
    total = logprobs.new_zeros(packed.answers).index_add(0, packed.answer, -logprobs)
    return total / packed.answer.bincount(minlength=packed.answers)


def validation_losses(base: Base, attachment: Attachment, groups: Sequence[Group], batch_tokens: int) -> list[float]:
    """Of each micro-batch the sum over its examples, in nats per answer token."""
    head, losses = base.lm_head, []
    with torch.no_grad():
        for _, packed in packed_batches(groups, attachment, batch_tokens=batch_tokens, device=base.device):
            hidden = answer_hidden(decoder(base.model), packed, attachment)
            if head.trained:
                logprobs = _logprobs(head, hidden, packed)
            else:
                logprobs, _ = token_logprobs(hidden[packed.state], head, packed.target)
            losses.append(answer_losses(packed, logprobs).double().sum().item())
    return losses


def _logprobs(head: LmHead, hidden: Tensor, packed: Packed) -> Tensor:
    """log p of each answer token, (N,), with gradients that reach the head; it has few outputs."""
    return -functional.cross_entropy(head(hidden).float()[packed.state], packed.target, reduction="none")


class _Answers:
    """The answers' loss, as the loop wants it. The learner is attached throughout."""

    def __init__(
        self,
        base: Base,
        learner: Trainable,
        attachment: Attachment,
        data: Data,
        *,
        compute: Compute,
        training: Training[Answering],
        measure: Callable[[Attachment], float] | None,
    ) -> None:
        self.facts = {"objective": "next_token"}
        self.base, self.learner, self.attachment = base, learner, attachment
        self.compute, self.measure = compute, measure
        self.batch, self.seed = training.settings.batch, training.seed
        longest = training.settings.max_tokens
        self.examples, self.held_out = (encode(base, part, longest) for part in (data.train, data.validation))
        self.shuffle = successive_shuffles(len(self.examples), training.seed)

    def gradient(self, step: int) -> dict[str, float]:
        rows = order_of(step, self.batch, len(self.examples), self.shuffle)
        parts = processes.parts([self.examples[row] for row in rows], self.compute.units)

        def one(unit: int) -> dict[str, float]:
            # Dropout draws from the global generators: seeded by the step, so that a resumed run draws the same.
            with torch.random.fork_rng(range(self.compute.gpus) if self.compute.device == "cuda" else []):
                torch.manual_seed((self.seed * 1_000_003 + step - 1) * len(parts) + unit)
                return {"loss": self._accumulated(parts[unit], whole=len(rows))}

        measured = summed(self.learner, processes.joined(len(parts)), len(parts), one)
        return {"loss": sum(part["loss"] for part in measured)}

    def _accumulated(self, groups: Sequence[Group], whole: int) -> float:
        """Add the gradient of a part of a step, that has ``whole`` examples, and give the part's share of the loss."""
        return _accumulate(self.base, self.learner, self.attachment, groups, self.compute.batch_tokens, whole=whole)

    def row(self, measured: Mapping[str, float], norm: float) -> Row:
        return {"train": measured["loss"]}

    def validate(self) -> Row:
        parts = processes.parts(self.held_out, self.compute.units)
        group = processes.joined(len(parts))
        losses: list[list[float]] = group.gathered(
            len(parts),
            {
                unit: validation_losses(self.base, self.attachment, parts[unit], self.compute.batch_tokens)
                for unit in group.own(len(parts))
            },
        )
        row: Row = {"validation": math.fsum(loss for several in losses for loss in several) / len(self.held_out)}
        if self.measure is None:
            return row
        measured = self.measure(self.attachment)
        # A metric may have no value: a correlation, where all answers are the same.
        return {**row, "measured": None if math.isnan(measured) else measured}

    def merit(self, validated: Row) -> tuple[float, ...]:
        """What was measured, if anything was; then the loss."""
        measured = validated.get("measured", 0.0)
        return -math.inf if measured is None else measured, -validated["validation"]


def train(
    base: Base,
    learner: Trainable,
    data: Data,
    *,
    compute: Compute,
    training: Training[Answering],
    measure: Callable[[Attachment], float] | None = None,
) -> list[Row]:
    """Train ``learner`` in place, leave it at its best validated state, and return the curve, a row a step.

    data: an example's place in ``data.train`` is the row that the learner is told (see ``Attachment.begin``).
    measure: what the best state has most of; the loss decides between equals. In the curve as ``measured``. None: the
        loss alone decides.
    """
    data.required()
    with learner.learning(base.model) as attachment:
        objective = _Answers(
            base,
            learner,
            attachment,
            data,
            compute=compute,
            training=training,
            measure=measure,
        )
        run = optimise(learner, objective, training=training, name="next_token")
    return run.rows()


def _accumulate(
    base: Base, learner: Trainable, attachment: Attachment, groups: Sequence[Group], batch_tokens: int, *, whole: int
) -> float:
    """Add the gradient of some of a step's ``whole`` examples; their share of the mean loss, in nats per token."""
    total, head = 0.0, base.lm_head
    for batch, packed in packed_batches(groups, attachment, batch_tokens=batch_tokens, device=base.device):
        hidden = answer_hidden(decoder(base.model), packed, attachment)
        lengths = packed.answer.bincount(minlength=packed.answers)
        weights = 1 / (lengths[packed.answer] * whole)
        if head.trained:
            logprobs = _logprobs(head, hidden, packed)
            loss = -(weights * logprobs).sum()
        else:
            objective = policy_objective(hidden, head, packed.target, packed.state, advantage=weights)
            loss, logprobs = objective.loss, objective.logprobs
        extra = learner.extra_loss()
        if extra is not None:
            loss = loss + extra * len(batch) / whole
        loss.backward()
        total += answer_losses(packed, logprobs.detach()).double().sum().item()
    return total / whole
