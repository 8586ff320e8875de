"""What the stages that train one of many variants have in common: its settings, its method by name, a sweep.

A method that is trained on one task is a module of ``pipeline.methods`` with ``Settings`` and

    learner(model, settings, *, factors, generator) -> what both trainers take, and ``adapter(name)``, which is saved

An entry holds all its settings (what several share, YAML's anchors say once), so that a changed one reruns alone.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Self, TypeVar

from pydantic import Field

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.model.forward.adapters import method_module

Trained = TypeVar("Trained")
Rows = list[dict[str, Any]]


class Sweep(Section):
    """Values that stand in for the two of the training: every rate is tried with every clip.

    learning_rates: AdamW's. clips: largest norms of the gradient.
    """

    learning_rates: tuple[float, ...] = Field(min_length=1)
    clips: tuple[float, ...] = Field(min_length=1)


class Variant(Section):
    """One training with all its settings. adapter: the method's own, checked by its ``Settings``."""

    method: str
    task: str
    seed: int
    adapter: dict[str, Any]
    sweep: Sweep | None = None

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        variant = super().parse(value, where)
        adapter_settings(variant.method, variant.adapter, f"{where}.adapter")
        return variant


def adapter_settings(method: str, value: Mapping[str, Any], where: str) -> Any:
    """A method's own settings, as its module reads them; ``where`` names them in an error."""
    return method_named(method).Settings.parse(value, where)


def method_named(name: str) -> ModuleType:
    """The module of a method that is trained on one task. UserError if there is none."""
    return method_module(name, "learner", "Settings")


def swept(
    sweep: Sweep | None,
    learning_rate: float,
    clip: float,
    train: Callable[[float, float, Checkpoints], tuple[Trained, Rows]],
    *,
    checkpoints: Checkpoints,
    best: Callable[[float, float], float],
) -> tuple[Trained, Rows]:
    """What ``train`` returns, for the pair of a rate and a clip that does best on validation.

    best: the better of two validation values, ``min`` of losses or ``max`` of accuracies; the earlier pair wins a tie.
    The curve of a sweep has the rows of all its pairs, with ``learning_rate`` and ``clip``; one of them is ``chosen``.
    """
    if sweep is None:
        return train(learning_rate, clip, checkpoints)
    kept: tuple[Trained, float] | None = None
    curve: Rows = []
    for rate in sweep.learning_rates:
        for norm in sweep.clips:
            trained, rows = train(rate, norm, Checkpoints(checkpoints.folder / f"{rate}-{norm}"))
            value = next(row["validation"] for row in rows if row["chosen"])
            if kept is None or best(kept[1], value) != kept[1]:
                kept = (trained, value)
                curve = [{**row, "chosen": False} for row in curve]
            else:
                rows = [{**row, "chosen": False} for row in rows]
            curve += [{**row, "learning_rate": rate, "clip": norm} for row in rows]
    assert kept is not None
    return kept[0], curve
