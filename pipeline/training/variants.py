"""What the stages that train an adapter have in common: how a learner begins, a sweep, what is said of the result.

A method that is trained on one task is a module of ``pipeline.methods`` with ``Settings`` and

    learner(model, settings, *, factors, generator)

which both trainers take, and whose ``adapter(name)`` is saved.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.model.forward.adapters import Factors, method_module
from pipeline.training.loop import Learner, Optimisation, Row, Training
from pipeline.training.recipes import Sweep

Trained = TypeVar("Trained")
Settings = TypeVar("Settings", bound=Optimisation)


def beginning(
    model: nn.Module, method: str, adapter: Mapping[str, Any], *, factors: Factors, seed: int
) -> Callable[[], Any]:
    """What makes an untrained learner of a method, the same one at every call. adapter: the method's own settings."""
    module = method_module(method, "learner", "Settings")
    settings = module.Settings.parse(adapter, "adapter")

    def begin() -> Any:
        return module.learner(model, settings, factors=factors, generator=torch.Generator().manual_seed(seed))

    return begin


def swept(
    sweep: Sweep | None,
    training: Training[Settings],
    train: Callable[[Training[Settings]], tuple[Trained, list[Row]]],
    *,
    better: Callable[[float, float], float],
) -> tuple[Trained, list[Row]]:
    """What ``train`` returns, for the pair of a rate and a clip that does best on validation.

    The curve of a sweep has the rows of all its pairs, with ``learning_rate`` and ``clip``; one of them is ``chosen``.

    better: the better of two validation values: ``min`` of losses, ``max`` of accuracies. The earlier pair wins a tie.
    """
    if sweep is None:
        return train(training)
    kept: tuple[Trained, float] | None = None
    curve: list[Row] = []
    for rate in sweep.learning_rates:
        for clip in sweep.clips:
            trained, rows = train(training.at(rate, clip))
            value = next(row["validation"] for row in rows if row["chosen"])
            if kept is None or better(kept[1], value) != kept[1]:
                kept = (trained, value)
                curve = [{**row, "chosen": False} for row in curve]
            else:
                rows = [{**row, "chosen": False} for row in rows]
            curve += [{**row, "learning_rate": rate, "clip": clip} for row in rows]
    assert kept is not None
    return kept[0], curve


def provenance(learner: Learner, *, method: str, seed: int, model: Path, **about: Any) -> dict[str, Any]:
    """What an adapter's file says of how it was trained.

    model: the base model's folder. about: what is said beside, e.g. ``task``.
    """
    parameters = sum(parameter.numel() for parameter in learner.parameters())
    return {"method": method, "seed": seed, "base": model.parent.name, "parameters": parameters, **about}
