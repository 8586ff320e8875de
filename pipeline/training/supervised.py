"""Next-token prediction on reference answers, for any adapter over a frozen base.

The loss of an example is the mean, over its answer's tokens (the end-of-sequence token included), of −log p in
nats; a batch's loss is the mean over its examples, plus what the adapter itself asks for. The language-model head
is run on answer positions only, so no (batch, seq, vocabulary) tensor exists.

AdamW with a linear warmup and a linear or cosine decay; gradients are clipped by their norm; the state of lowest
validation loss is kept, or, where the caller measures something (``validate``), the one that does best by that. A run
is a function of its arguments: what is drawn at step t depends on the seed and t alone, so a run that is killed and
started again ends with the same bytes.

**Deviations**
1. Examples weigh the same, not tokens: skills whose answers are long would otherwise outweigh those whose answers
   are a number.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Base, decoder
from pipeline.model.forward.logprobs import policy_objective, token_logprobs
from pipeline.training.packing import Group, Packed, answer_hidden, packed_batches


class Training(Section):
    """How an adapter is trained.

    steps: optimizer steps, of ``batch`` examples each. warmup: share of the steps over which the rate rises.
    clip: largest norm of the gradient. validate_every, checkpoint_every: in steps.
    validation_examples: how many of each validation file are used, from its start.
    """

    steps: int
    batch: int
    learning_rate: float
    schedule: Literal["linear", "cosine"]
    warmup: float
    weight_decay: float
    clip: float
    validate_every: int
    validation_examples: int
    checkpoint_every: int


class Trainable(Protocol):
    """What can be trained: an adapter's side of the bargain."""

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        """Attached so that gradients reach ``parameters()``."""
        ...

    def retract(self) -> None:
        """Called after each optimizer step: back onto whatever surface the parameters live on."""
        ...

    def extra_loss(self) -> Tensor | None:
        """What joins the loss of the last forward pass, as a mean over its examples."""
        ...


@runtime_checkable
class Uneven(Protocol):
    """What does not learn at one rate."""

    def rates(self) -> Mapping[nn.Parameter, float]:
        """Parameters that learn at another rate than the rest: how many times as large it is."""
        ...


def encode(base: Base, examples: Sequence[Example]) -> list[Group]:
    """Examples as token ids: a prompt and its one answer each; an example's row is its index."""
    return [
        Group(base.prompt_ids(example.messages), [base.answer_ids(example.target)], row)
        for row, example in enumerate(examples)
    ]


def answer_losses(packed: Packed, logprobs: Tensor) -> Tensor:
    """Nats per answer token of each answer of a batch, (answers,). logprobs: (N,) of the answers' tokens."""
    total = logprobs.new_zeros(packed.answers).index_add(0, packed.answer, -logprobs)
    return total / packed.answer.bincount(minlength=packed.answers)


def validation_loss(base: Base, attachment: Attachment, groups: Sequence[Group], batch_tokens: int) -> float:
    """Mean over the examples, in nats per answer token."""
    head, losses = base.model.get_output_embeddings(), []
    with torch.no_grad():
        for _, packed in packed_batches(groups, attachment, batch_tokens=batch_tokens, device=base.device):
            hidden = answer_hidden(decoder(base.model), packed, attachment)
            if _trained(head):
                logprobs = _logprobs(head, hidden, packed)
            else:
                logprobs, _ = token_logprobs(hidden[packed.state], head.weight, packed.target)
            losses.append(answer_losses(packed, logprobs).double().sum().item())
    return math.fsum(losses) / len(groups)


def _trained(head: nn.Module) -> bool:
    """Whether the head is trained, too: a classification head, and not the frozen model's own."""
    return any(parameter.requires_grad for parameter in head.parameters())


def _logprobs(head: nn.Module, hidden: Tensor, packed: Packed) -> Tensor:
    """log p of each answer token, (N,), with gradients that reach the head; it has few outputs."""
    return -functional.cross_entropy(head(hidden).float()[packed.state], packed.target, reduction="none")


def rate(step: int, training: Training) -> float:
    """The learning rate of a step, counted from 0: up linearly over the warmup, then down to 0."""
    warmup = round(training.warmup * training.steps)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, training.steps - warmup)
    left = 1 - done if training.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return training.learning_rate * left


def order(examples: int, wanted: int, seed: int) -> list[int]:
    """``wanted`` indices: one shuffle of all examples after another."""
    generator = torch.Generator().manual_seed(seed)
    shuffles = [torch.randperm(examples, generator=generator) for _ in range(math.ceil(wanted / examples))]
    return torch.cat(shuffles)[:wanted].tolist()


def train(
    base: Base,
    adapter: Trainable,
    *,
    examples: Sequence[Example],
    validation: Sequence[Example],
    training: Training,
    batch_tokens: int,
    seed: int,
    checkpoints: Checkpoints,
    validate: Callable[[Attachment], float] | None = None,
) -> list[dict[str, Any]]:
    """Train ``adapter`` in place, leave it at its best validated state, and return the curve, a row per step.

    Rows are passed to the adapter as indices into ``examples``. validate: what the best state has most of, the loss
    deciding between equals; in the curve as ``measured``. None: the loss alone decides.
    """
    if not examples or not validation:
        raise UserError(
            f"expected training and validation examples, got {len(examples)} and {len(validation)}; "
            "raise their numbers in params.yaml"
        )
    encoded, held_out = encode(base, examples), encode(base, validation)
    rows = order(len(examples), training.steps * training.batch, seed)
    with adapter.learning(base.model) as attachment:
        parameters = list(adapter.parameters())
        optimizer = torch.optim.AdamW(
            _groups(adapter, parameters), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        curve, best = _resume(adapter, optimizer, checkpoints)
        if not curve:
            loss = validation_loss(base, attachment, held_out, batch_tokens)
            curve, best = [_row(0, None, loss, validate and validate(attachment))], _copy(adapter)
        chosen_row = max((row for row in curve if row["validation"] is not None), key=_merit)
        with bar("train", training.steps) as drawn:
            drawn.advance(curve[-1]["step"])
            for step in range(curve[-1]["step"], training.steps):
                chosen = [encoded[row] for row in rows[step * training.batch : (step + 1) * training.batch]]
                # Dropout draws from the global generator: seeded by the step, so that a resumed run draws the same.
                with torch.random.fork_rng():
                    torch.manual_seed(seed * 1_000_003 + step)
                    loss = _accumulate(base, adapter, attachment, chosen, batch_tokens)
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, training.clip))
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    raise UserError(
                        f"expected a finite loss and gradient at step {step + 1}, got {loss} and {norm}; lower the "
                        "learning rate or set compute.dtype to float32 in params.yaml"
                    )
                for group in optimizer.param_groups:
                    group["lr"] = rate(step, training) * group["times"]
                optimizer.step()
                optimizer.zero_grad()
                adapter.retract()
                done = step + 1
                row = _row(done, loss, None)
                if done % training.validate_every == 0 or done == training.steps:
                    validated = validation_loss(base, attachment, held_out, batch_tokens)
                    if not math.isfinite(validated):
                        raise UserError(
                            f"expected a finite validation loss after step {done}, got {validated}; lower the learning "
                            "rate in params.yaml"
                        )
                    row = _row(done, loss, validated, validate and validate(attachment))
                    if _merit(row) > _merit(chosen_row):
                        chosen_row, best = row, _copy(adapter)
                curve.append(row)
                if done % training.checkpoint_every == 0 and done < training.steps:
                    _save(adapter, optimizer, curve, best, checkpoints)
                drawn.advance(note=f"loss {loss:.3f}, validation {chosen_row['validation']:.3f}")
        adapter.load_state(best)
    return [{**row, "chosen": row is chosen_row} for row in curve]


def _accumulate(
    base: Base, adapter: Trainable, attachment: Attachment, groups: Sequence[Group], batch_tokens: int
) -> float:
    """Add one batch's gradient to the parameters; the answers' mean loss, in nats per token."""
    total, head = 0.0, base.model.get_output_embeddings()
    for batch, packed in packed_batches(groups, attachment, batch_tokens=batch_tokens, device=base.device):
        hidden = answer_hidden(decoder(base.model), packed, attachment)
        lengths = packed.answer.bincount(minlength=packed.answers)
        weights = 1 / (lengths[packed.answer] * len(groups))
        if _trained(head):
            logprobs = _logprobs(head, hidden, packed)
            loss = -(weights * logprobs).sum()
        else:
            objective = policy_objective(hidden, head.weight, packed.target, packed.state, advantage=weights)
            loss, logprobs = objective.loss, objective.logprobs
        extra = adapter.extra_loss()
        if extra is not None:
            loss = loss + extra * len(batch) / len(groups)
        loss.backward()
        total += answer_losses(packed, logprobs.detach()).double().sum().item()
    return total / len(groups)


def _groups(adapter: Trainable, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """The optimizer's groups: ``times`` the learning rate each."""
    rates = adapter.rates() if isinstance(adapter, Uneven) else {}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(rates.get(parameter, 1.0), []).append(parameter)
    return [{"params": group, "times": times} for times, group in groups.items()]


def _copy(adapter: Trainable) -> dict[str, Tensor]:
    """The adapter's state as it is now."""
    return {name: tensor.clone() for name, tensor in adapter.state().items()}


def _row(step: int, train_loss: float | None, validated: float | None, measured: float | None = None) -> dict[str, Any]:
    row = {"step": step, "objective": "next_token", "train": train_loss, "validation": validated}
    if measured is None:
        return row
    # A metric may have no value: a correlation, where all answers are the same.
    return {**row, "measured": None if math.isnan(measured) else measured}


def _merit(row: Mapping[str, Any]) -> tuple[float, float]:
    """What a validated state is chosen by, the more the better: what was measured, if anything was; then the loss."""
    measured = row.get("measured", 0.0)
    return -math.inf if measured is None else measured, -row["validation"]


def _save(
    adapter: Trainable,
    optimizer: torch.optim.Optimizer,
    curve: list[dict[str, Any]],
    best: Mapping[str, Tensor],
    checkpoints: Checkpoints,
) -> None:
    tensors = {f"now.{name}": tensor for name, tensor in adapter.state().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    checkpoints.save("supervised", tensors, {"curve": curve})


def _resume(
    adapter: Trainable, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The curve so far and the best state of a run that was killed, with adapter and optimizer put back; or nothing."""
    found = checkpoints.load("supervised")
    if found is None:
        return [], {}
    tensors, meta = found
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    adapter.load_state(parts["now"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return meta["curve"], parts["best"]
