"""A scan over α: whether the mixture matters at all, before a search is asked to find the best one.

All α of a grid are judged, to the end. ``shared-normalised`` is the simplex: coefficients from 0 to 1 that sum to 1, in
steps of 1/n. ``shared-free`` is the cube, each coefficient from 0 to 1. n is the largest whose grid has at most
``population`` points; it holds every single expert, and the cube the base model (α = 0). The trace keeps every point
with its accuracy. Where all of them are alike, no search can gain.

Of the settings, ``elites`` has to be the population, so that no accuracy is a lower bound; ``generations``,
``deviation`` and ``smoothing`` have no effect.
"""

import itertools

import torch
from torch import Tensor

from pipeline.adaptation.contract import FewShot, Judge, Outcome
from pipeline.adaptation.record import Record
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import bar


def search(
    judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints
) -> Outcome:
    """Judge the grid of every configuration; the best point is the outcome."""
    if settings.elites != settings.population or any(not name.startswith("shared") for name in settings.configurations):
        raise UserError(
            "params.yaml: expected a scan to have as many elites as its population, and shared configurations, got "
            f"{settings.elites} of {settings.population} and {', '.join(settings.configurations)}; correct them"
        )
    record = Record(judge, layers=layers, settings=settings, checkpoints=checkpoints)
    with bar("scan α", len(settings.configurations)) as drawn:
        for _, configuration, _ in record.configurations():
            points = grid(experts, settings.population, simplex=configuration.endswith("normalised"))
            record.judged(configuration, 0, points[:, None])
            record.outcome.trace[-1]["points"] = points.tolist()
            drawn.advance(1, f"best {record.outcome.accuracy:.2f}")
    return record.outcome


def grid(experts: int, most: int, *, simplex: bool) -> Tensor:
    """The points of the finest grid that has at most ``most``: (points, experts), float32."""
    finest = None
    for steps in itertools.count(1):
        points = [
            point for point in itertools.product(range(steps + 1), repeat=experts) if not simplex or sum(point) == steps
        ]
        if len(points) > most:
            break
        finest = torch.tensor(points, dtype=torch.float32) / steps
    if finest is None:
        raise UserError(
            f"params.yaml: expected a population of at least {experts if simplex else 2**experts} for a scan over "
            f"{experts} experts, got {most}; raise it"
        )
    return finest
