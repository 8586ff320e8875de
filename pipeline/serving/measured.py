"""What was measured of an expert: the scores of the cells that it answered."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.core.config import lookup
from pipeline.evaluation.intervals import Estimate, Resampling, estimate
from pipeline.serving.names import BASE, Names


@dataclass(frozen=True)
class Measured:
    """Accuracy on one task and its 95 % interval, of n prompts, as the report has it; base: of the base model there."""

    task: str
    mean: float
    low: float
    high: float
    n: int
    base: float | None


def measured(project: Names, path: Path) -> list[Measured]:
    """What was scored of the artifact in ``path``, a line for each task."""
    lines = []
    for key, cell in project.plan.get("cells", {}).items():
        if cell["base"] != BASE or project.artifact(cell["adapter"]) != path:
            continue
        own, unadapted = _scored(project, key), _scored(project, f"{cell['task']}-{BASE}")
        if own:
            lines.append(Measured(cell["task"], *own, unadapted.mean if unadapted else None))
    return lines


def _scored(project: Names, cell: str) -> Estimate | None:
    """The accuracy of a cell; None where it was not scored yet."""
    path = project.artifact(f"scores/{cell}", ".parquet")
    if not path.is_file():
        return None
    correct = pd.read_parquet(path, columns=["correct"])["correct"].to_numpy(dtype=float)
    settings = lookup(project.params, "report")
    return estimate([correct], Resampling(resamples=settings["resamples"], seed=settings["seed"]))
