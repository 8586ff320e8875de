"""Metrics beside accuracy, and win rates, with the intervals of ``pipeline.evaluation.intervals``.

Scores of a task with further metrics have, beside the columns that ``intervals`` names,

    also.<name>       a metric that has a number for each example
    metrics           names of metrics that are no mean over examples (``pipeline.scoring.metrics``), apart by blanks
    given, expected   what those are functions of

A metric that is no mean over examples is computed anew for each resample.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.evaluation.intervals import (
    Resampling,
    chosen_cells,
    estimate,
    interval,
    over_seeds,
    per_example,
    resampled_rows,
    verdict,
)
from pipeline.scoring.metrics import PAIRED

ALSO = "also."  # begins the name of a column that holds a further metric


def further(scores: pd.DataFrame, resampling: Resampling, reference: str) -> pd.DataFrame:
    """The further metrics of every row and task, beside the row ``reference``.

    Returns one line each with row, task, metric, mean, low, high, n, diff, diff_low, diff_high, verdict and seeds, as
    ``intervals.compare`` does. Of a row's alternatives, the most accurate counts.
    """
    cells = {}
    for (row, task), group in scores.groupby(["row", "task"], sort=False):
        cells[str(row), str(task)] = group[group["cell"].isin(chosen_cells(group))]
    lines = []
    for (row, task), own in cells.items():
        other = cells.get((reference, task)) if row != reference else None
        for metric in metrics_of(own):
            ids = per_example(own)[per_example(own, metric.column).notna().all(axis=1)].index
            resampled = metric.resampled(own, ids, resampling)
            value = interval(metric.value(own, ids), over_seeds(resampled, resampling), len(ids))
            line = {"row": row, "task": task, "metric": metric.name, **value._asdict(), "seeds": own["cell"].nunique()}
            if other is not None and metric in metrics_of(other):
                theirs = metric.resampled(other, ids, resampling)
                differences = over_seeds(resampled[:, :, None] - theirs[:, None, :], resampling)
                difference = interval(value.mean - metric.value(other, ids), differences, len(ids))
                line |= {"diff": difference.mean, "diff_low": difference.low, "diff_high": difference.high}
                line["verdict"] = verdict(difference)
            lines.append(line)
    columns = ["row", "task", "metric", "mean", "low", "high", "n", "diff", "diff_low", "diff_high", "verdict", "seeds"]
    return pd.DataFrame(lines, columns=columns)


class Metric(NamedTuple):
    """A further metric: the mean of its column, or a function of the columns ``given`` and ``expected``."""

    name: str
    column: str

    def value(self, scores: pd.DataFrame, ids: pd.Index) -> float:
        """The mean over seeds, on some examples."""
        return float(self._of_seeds(scores, ids, np.arange(len(ids))[None]).mean())

    def resampled(self, scores: pd.DataFrame, ids: pd.Index, resampling: Resampling) -> np.ndarray:
        """(B, seeds) on resamples of some examples."""
        drawn = resampled_rows(len(ids), resampling, 0, scores["cell"].nunique())
        return np.concatenate([self._of_seeds(scores, ids, rows) for rows in drawn])

    def _of_seeds(self, scores: pd.DataFrame, ids: pd.Index, rows: np.ndarray) -> np.ndarray:
        """(some, seeds) on the examples at the places ``rows``, (some, n)."""
        values = per_example(scores, self.column).reindex(ids).to_numpy()
        if self.column.startswith(ALSO):
            return values[rows].mean(axis=1)
        expected = per_example(scores, "expected").reindex(ids).to_numpy()[:, 0]
        function = PAIRED[self.name]
        return np.array([[function(given[row], expected[row]) for given in values.T] for row in rows])


def metrics_of(scores: pd.DataFrame) -> list[Metric]:
    """The further metrics that some scores have."""
    columns = [str(name) for name in scores if str(name).startswith(ALSO) and scores[name].notna().any()]
    by_example = [Metric(column.removeprefix(ALSO), column) for column in columns]
    named: list[str] = list(scores["metrics"].dropna().unique()) if "metrics" in scores else []
    return by_example + [Metric(name, "given") for names in named for name in names.split()]


def win_rates(judged: Sequence[Mapping[str, Any]], resampling: Resampling) -> list[dict[str, Any]]:
    """What the stage ``judge`` wrote, with intervals over the instructions and over the annotated pairs. Fractions."""
    lines = []
    for cell in judged:
        won = estimate([np.array([value - 1 for value in cell["preferences"] if value is not None])], resampling)
        agreed = estimate([np.array(cell["agreed"], float)], resampling)
        lines.append(
            {
                **{key: cell[key] for key in ("cell", "judge", "reference")},
                **{"win_rate": won.mean, "low": won.low, "high": won.high, "n": won.n},
                "controlled": cell["length_controlled_win_rate"],
                **{"agreement": agreed.mean, "agreement_low": agreed.low, "agreement_high": agreed.high},
                **{"agreement_n": agreed.n, "agreement_draws": cell["drawn"]},
            }
        )
    return lines
