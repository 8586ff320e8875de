"""What training skills together costs each of them: its change against training it alone.

For a method and a skill, with the same test examples answered by the adapter trained on all skills (together) and by
the one trained on that skill (alone),

    change = accuracy together − accuracy alone

example by example, for each pair of their seeds, with the intervals of ``pipeline.evaluation.intervals``, which draw the seeds,
too. A change that is worse is interference. Of two methods, the one whose change is larger suffers less: the difference
of their changes is paired over examples. Its limits are those of ``pipeline.evaluation.intervals``.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.errors import UserError
from pipeline.evaluation.intervals import MEAN_OVER_TASKS, Resampling, bare, estimate, paired, per_example, verdict

COLUMNS = ("row", "task", "together", "alone", "diff", "diff_low", "diff_high", "verdict", "n", "seeds")


def accuracies(scores: pd.DataFrame, row: str) -> dict[str, pd.Series]:
    """Task to accuracy per example, the mean over seeds, of one row of the scores."""
    return {task: one.mean(axis=1) for task, one in _cells(scores, row).items()}


def _cells(scores: pd.DataFrame, row: str) -> dict[str, pd.DataFrame]:
    """Task to right or wrong, examples by seeds, of one row of the scores."""
    part = scores[scores["row"] == row]
    if part.empty:
        raise UserError(f"params.yaml: expected cells of the row '{row}', got none; add them or correct skill_reports")
    return {str(task): per_example(group) for task, group in part.groupby("task", sort=False)}


class Change(NamedTuple):
    """A task's change. ids: of its n examples; values: (n,), or (n, seeds, seeds alone)."""

    ids: pd.Index
    values: np.ndarray

    def less(self, other: "Change", task: str) -> np.ndarray:
        """The difference of two methods' changes, example by example, for all their seeds."""
        if set(self.ids) != set(other.ids):
            raise UserError(
                f"expected the same examples of '{task}' in the cells of both methods, got others; run the stages "
                "generate and score again"
            )
        theirs = other.values[other.ids.get_indexer(self.ids)]
        own, theirs = (one.reshape(len(one), *(one.shape[1:] or (1, 1))) for one in (self.values, theirs))
        return bare(own[:, :, :, None, None] - theirs[:, None, None])


def changes(scores: pd.DataFrame, row: str, alone: str) -> dict[str, Change]:
    """Task to the change of ``row`` against the row ``alone``."""
    together, apart = (_cells(scores, one) for one in (row, alone))
    missing = sorted(set(together) - set(apart))
    if missing:
        raise UserError(f"params.yaml: expected cells of the row '{alone}' on {', '.join(missing)}; add them")
    return {task: Change(one.index, paired(one, apart[task], f"'{task}'")) for task, one in together.items()}


def matrix(scores: pd.DataFrame, references: Mapping[str, str], resampling: Resampling) -> pd.DataFrame:
    """The interference matrix, a line per row and task and one per row for the mean over tasks.

    references: row to the row of the same method trained on one skill alone.
    """
    lines = []
    for row, alone in references.items():
        change = changes(scores, row, alone)
        together, apart = accuracies(scores, row), accuracies(scores, alone)
        for name, span in [*((task, [task]) for task in change), (MEAN_OVER_TASKS, sorted(change))]:
            found = estimate([change[task].values for task in span], resampling)
            part = scores[(scores["row"] == row) & scores["task"].isin(span)]
            lines.append(
                (
                    row,
                    name,
                    float(sum(together[task].mean() for task in span) / len(span)),
                    float(sum(apart[task].mean() for task in span) / len(span)),
                    found.mean,
                    found.low,
                    found.high,
                    verdict(found),
                    found.n,
                    part["seed"].nunique(),
                )
            )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def contrast(
    scores: pd.DataFrame, references: Mapping[str, str], pair: Sequence[str], resampling: Resampling
) -> dict[str, object]:
    """The first row's change less the second's, mean over the tasks: diff, diff_low, diff_high, verdict, n."""
    one, other = (changes(scores, row, references[row]) for row in pair)
    tasks = sorted(set(one) & set(other))
    found = estimate([one[task].less(other[task], task) for task in tasks], resampling)
    return {
        "diff": found.mean,
        "diff_low": found.low,
        "diff_high": found.high,
        "verdict": verdict(found),
        "n": found.n,
    }


def advantage(scores: pd.DataFrame, pair: Sequence[str], resampling: Resampling) -> dict[str, object]:
    """The first row's accuracy less the second's, mean over the tasks of both: diff, diff_low, diff_high, verdict, n.

    Whatever both are compared with cancels, and seeds are drawn, too (``pipeline.evaluation.intervals``).
    """
    one, other = (_cells(scores, row) for row in pair)
    tasks = sorted(set(one) & set(other))
    found = estimate([paired(one[task], other[task], f"'{task}'") for task in tasks], resampling)
    return {
        "diff": found.mean,
        "diff_low": found.low,
        "diff_high": found.high,
        "verdict": verdict(found),
        "n": found.n,
    }


def spans(scores: pd.DataFrame, row: str, tasks: Sequence[str], resampling: Resampling) -> tuple[float, float, float]:
    """A row's mean accuracy over some tasks, with its interval."""
    values = _cells(scores, row)
    found = estimate([bare(values[task].to_numpy()) for task in sorted(tasks)], resampling)
    return found.mean, found.low, found.high
