"""The loop of every training: steps, learning rate, order of the examples, validation, patience, checkpoints.

An ``Objective`` says what is trained for: how the gradient of a step comes about, how a state is validated, which of
two states is better, and what the curve says. ``optimise`` does the rest:

    step 0          the untrained state is validated
    step 1 … steps  gradient, clipped; optimizer; back onto the surface the learner lives on (``retract``)
    every validate_every steps, and after the last: validation; the best state so far is kept
    more than ``patience`` validations without a new best: the training ends

The learner ends at its best state, the earliest of equals. What is drawn at a step depends on the seed and the step's
number alone, so a training that is killed and started again ends with the same bytes.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.core import processes
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.training.optimizers import optimizer_of

Row = dict[str, Any]  # of a curve: one step
Shuffle = Callable[[int], Sequence[int]]  # the number of an epoch, from 0, to the order of its examples


class Optimisation(Section):
    """How something is trained.

    steps: optimizer steps.
    batch: examples, or prompts, of one step.
    optimizer, momentum: see ``pipeline.training.optimizers``.
    learning_rate, weight_decay: the optimizer's.
    schedule: of the learning rate after the warmup: constant, or down to zero linearly or along a cosine.
    warmup: share of the steps over which the learning rate rises.
    clip: largest norm of the gradient.
    validate_every: steps from one validation to the next.
    validation_examples: held-out examples that are used, from the start of each file.
    patience: validations in a row that may bring no new best; the next such one ends the training.
    checkpoint_every: steps from one checkpoint to the next.
    """

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    optimizer: Literal["adamw", "adam_shared", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "linear", "cosine"]
    warmup: float = Field(ge=0, le=1)
    clip: float
    validate_every: int = Field(ge=1)
    validation_examples: int = Field(ge=1)
    patience: int = Field(ge=0)
    checkpoint_every: int = Field(ge=1)


Settings = TypeVar("Settings", bound=Optimisation, covariant=True)


@dataclass(frozen=True)
class Training(Generic[Settings]):
    """One training: its settings, its seed, and where its state is kept so that it can go on after a kill."""

    settings: Settings
    seed: int
    checkpoints: Checkpoints

    def at(self, learning_rate: float, clip: float) -> Self:
        """The same training with another rate and clip; its checkpoints are its own."""
        settings = self.settings.model_copy(update={"learning_rate": learning_rate, "clip": clip})
        kept = self.checkpoints.within(f"{learning_rate}-{clip}")
        return replace(self, settings=settings, checkpoints=kept)


@dataclass(frozen=True)
class Data:
    """train: the examples that are learnt from. validation: held-out ones, which decide what state is kept."""

    train: Sequence[Example]
    validation: Sequence[Example]

    def required(self) -> None:
        """A UserError where there is nothing to train or to validate on."""
        if not self.train or not self.validation:
            raise UserError(
                f"expected training and validation examples, got {len(self.train)} and {len(self.validation)}; raise "
                "their numbers in params.yaml"
            )


def read_data(train: Path, validation: Path, settings: Optimisation) -> Data:
    """The examples of two files; of the second as many as the settings say."""
    return Data(read_examples(train), read_examples(validation)[: settings.validation_examples])


class Learner(Protocol):
    """What can be trained."""

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: dict[str, Tensor], /) -> None: ...

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        """Attached so that gradients reach ``parameters()``."""
        ...

    def retract(self) -> None:
        """Called after each optimizer step: back onto whatever surface the parameters live on."""
        ...


@runtime_checkable
class Uneven(Protocol):
    """A learner whose parameters do not all learn at one rate."""

    def rates(self) -> Mapping[nn.Parameter, float]:
        """For each parameter that learns at another rate than the rest: how many times as large its rate is."""
        ...


@runtime_checkable
class Parted(Protocol):
    """A learner whose flat parameters are made of parts."""

    def parts(self) -> Mapping[nn.Parameter, Sequence[int]]:
        """The sizes of the parts of each such parameter."""
        ...


@runtime_checkable
class Measured(Protocol):
    """A learner of which the curve says more."""

    def measures(self) -> dict[str, float]:
        """Of its present state, by name."""
        ...


class Objective(Protocol):
    """What a learner is trained for. facts: what every row of the curve says."""

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def gradient(self, step: int) -> dict[str, float]:
        """Add the gradient of a step, from 1, to the learner's parameters; what was measured on the way, by name."""
        ...

    def row(self, measured: Mapping[str, float], norm: float) -> Row:
        """What the curve says of a step, ``train`` among it.

        measured: what ``gradient`` returned. norm: of the gradient before it was clipped.
        """
        ...

    def validate(self) -> Row:
        """What the curve says of the learner's present state, ``validation`` among it."""
        ...

    def merit(self, validated: Row) -> tuple[float, ...]:
        """What validated states are compared by; the larger is the better."""
        ...


@dataclass
class Run:
    """What a training has come to; also what is saved to resume it.

    curve: a row for each step done, from step 0 on. best: the state that did best on validation, after ``best_step``
    steps. since_best: validations since then.
    """

    curve: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    since_best: int = 0

    @property
    def best_row(self) -> Row:
        return self.curve[self.best_step]

    def rows(self, *, chosen: bool = True) -> list[Row]:
        """The curve; ``chosen`` is the row of the best state, or none where another training was chosen."""
        return [{**row, "chosen": chosen and row["step"] == self.best_step} for row in self.curve]


def optimise(learner: Learner, objective: Objective, *, training: Training[Optimisation], name: str) -> Run:
    """Train ``learner`` in place and leave it at its best state. name: of the training, among its checkpoints."""
    settings = training.settings
    parts = learner.parts() if isinstance(learner, Parted) else {}
    optimizer = optimizer_of(_groups(learner), settings, parts)
    run = _resume(training.checkpoints, name, learner, optimizer) or Run()
    processes.current().meet()  # before the first of them saves a state that others have yet to read
    with bar(f"train ({name})", settings.steps) as drawn:
        drawn.advance(max(0, len(run.curve) - 1))
        while len(run.curve) <= settings.steps and run.since_best <= settings.patience:
            step = len(run.curve)
            row: Row = {"step": step, "train": None, "validation": None, **objective.facts}
            if step > 0:
                measured = objective.gradient(step)
                required_finite(step, measured)
                row |= objective.row(measured, update(learner, optimizer, step=step, settings=settings))
                row |= learner.measures() if isinstance(learner, Measured) else {}
                drawn.advance(note=f"{row['train']:.3f}, validation {run.best_row['validation']:.3f}")
            run.curve.append(row)
            if step % settings.validate_every == 0 or step == settings.steps:
                row |= objective.validate()
                required_finite(step, {"validation": row["validation"]})
                _judge(run, learner, objective)
            ended = step == settings.steps or run.since_best > settings.patience
            if step % settings.checkpoint_every == 0 or ended:
                _save(training.checkpoints, name, learner, optimizer, run)
    learner.load_state(run.best)
    return run


def _judge(run: Run, learner: Learner, objective: Objective) -> None:
    """Keep the state just validated, if it is the first or better than the best so far."""
    row = run.curve[-1]
    if not run.best or objective.merit(row) > objective.merit(run.best_row):
        run.best = {name: tensor.clone() for name, tensor in learner.state().items()}
        run.best_step, run.since_best = row["step"], 0
    else:
        run.since_best += 1


def update(learner: Learner, optimizer: torch.optim.Optimizer, *, step: int, settings: Optimisation) -> float:
    """One clipped step of the optimizer; the gradient's norm before clipping."""
    norm = float(nn.utils.clip_grad_norm_(learner.parameters(), settings.clip))
    required_finite(step, {"gradient": norm})
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, settings) * group["times"]
    optimizer.step()
    optimizer.zero_grad()
    learner.retract()
    return norm


def required_finite(step: int, values: Mapping[str, float]) -> None:
    """A UserError if one of the values measured at a step is no number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(
                f"expected a finite {name} at step {step} of the training, got {value}; lower the learning rate or set "
                "compute.dtype to float32 in params.yaml"
            )


def learning_rate(step: int, settings: Optimisation) -> float:
    """Of the step with this number, from 1: up linearly over the warmup, then as the schedule says."""
    warm = round(settings.warmup * settings.steps)
    if step <= warm:
        return settings.learning_rate * step / warm
    done = (step - 1 - warm) / max(1, settings.steps - warm)
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return settings.learning_rate * left[settings.schedule]


def order_of(step: int, batch: int, examples: int, shuffle: Shuffle) -> list[int]:
    """Which examples a step, from 1, uses: shuffled epochs one after the other."""
    places = range((step - 1) * batch, step * batch)
    return [shuffle(place // examples)[place % examples] for place in places]


# The two trainers drew their epochs differently before they shared this loop, and what they came to is published.


def seeded_shuffles(examples: int, seed: int) -> Shuffle:
    """Every epoch is drawn by a generator of its own."""

    @functools.cache
    def shuffle(epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        return torch.randperm(examples, generator=generator).tolist()

    return shuffle


def successive_shuffles(examples: int, seed: int) -> Shuffle:
    """One generator draws all epochs, one after the other."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[list[int]] = []

    def shuffle(epoch: int) -> list[int]:
        while len(drawn) <= epoch:
            drawn.append(torch.randperm(examples, generator=generator).tolist())
        return drawn[epoch]

    return shuffle


def _groups(learner: Learner) -> list[dict[str, Any]]:
    """The optimizer's groups of parameters. times: how many times the learning rate each learns at."""
    rates = learner.rates() if isinstance(learner, Uneven) else {}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in learner.parameters():
        groups.setdefault(rates.get(parameter, 1.0), []).append(parameter)
    return [{"params": group, "times": times} for times, group in groups.items()]


def _save(checkpoints: Checkpoints, name: str, learner: Learner, optimizer: torch.optim.Optimizer, run: Run) -> None:
    tensors = {f"learner.{key}": tensor for key, tensor in learner.state().items()}
    tensors |= {f"best.{key}": tensor for key, tensor in run.best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": tensor for key, tensor in moments.items()}
    meta = {"curve": run.curve, "best_step": run.best_step, "since_best": run.since_best}
    checkpoints.save(name, tensors, meta)


def _resume(checkpoints: Checkpoints, name: str, learner: Learner, optimizer: torch.optim.Optimizer) -> Run | None:
    """The run that was saved, with learner and optimizer put back to where it was; None if none was."""
    saved = checkpoints.load(name)
    if saved is None:
        return None
    tensors, meta = saved
    parts: dict[str, dict[str, Tensor]] = {"learner": {}, "best": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        parts[part][rest] = tensor
    learner.load_state(parts["learner"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in parts["optimizer"].items():
        index, _, entry = key.partition(".")
        moments.setdefault(int(index), {})[entry] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return Run(best=parts["best"], **meta)
