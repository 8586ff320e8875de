"""What training skills together costs each of them, against training it alone.

For a method and a skill, the same test examples are answered by the adapter trained on all skills (together) and by one
trained on that skill (alone), and

    change = accuracy together − accuracy alone

is taken example by example, for each pair of their seeds. A change that is worse is interference. Methods are set
against one common reference: the same adapters trained alone, whatever was trained together. Beside it stands the
change against the same method and size trained alone, which says what training together costs that method.

Of two methods, the one with the larger change suffers less. Against a common reference the accuracy alone cancels from
the difference of their changes: what is left is how far apart their accuracies together are, paired over examples.
Intervals, which draw seeds as well, and their limits are those of ``pipeline.evaluation.intervals``.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.errors import UserError
from pipeline.evaluation.intervals import (
    MEAN_OVER_TASKS,
    Estimate,
    Resampling,
    bare,
    estimate,
    paired,
    per_example,
    verdict,
)

COLUMNS = ("row", "task", "reference", "together", "alone", "diff", "diff_low", "diff_high", "verdict", "n", "seeds")


def accuracies(scores: pd.DataFrame, row: str) -> dict[str, pd.Series]:
    """Task to accuracy per example, the mean over seeds, of one row of the scores."""
    return {task: seeds.mean(axis=1) for task, seeds in _cells(scores, row).items()}


def _cells(scores: pd.DataFrame, row: str) -> dict[str, pd.DataFrame]:
    """Task to right or wrong, examples by seeds, of one row of the scores."""
    part = scores[scores["row"] == row]
    if part.empty:
        raise UserError(f"params.yaml: expected cells of the row '{row}', got none; add them or correct skill_reports")
    return {str(task): per_example(group) for task, group in part.groupby("task", sort=False)}


class Change(NamedTuple):
    """The change on a task. ids: of its n examples. values: (n,), or (n, seeds, seeds alone)."""

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
        own, theirs = (values.reshape(len(values), *(values.shape[1:] or (1, 1))) for values in (self.values, theirs))
        return bare(own[:, :, :, None, None] - theirs[:, None, None])


def changes(scores: pd.DataFrame, row: str, alone: str) -> dict[str, Change]:
    """Task to the change of ``row`` against the row ``alone``."""
    together, apart = _cells(scores, row), _cells(scores, alone)
    missing = sorted(set(together) - set(apart))
    if missing:
        raise UserError(f"params.yaml: expected cells of the row '{alone}' on {', '.join(missing)}, got none; add them")
    return {task: Change(seeds.index, paired(seeds, apart[task], f"'{task}'")) for task, seeds in together.items()}


def matrix(scores: pd.DataFrame, references: Mapping[str, str], resampling: Resampling) -> pd.DataFrame:
    """The interference matrix, a line per row and task and one per row for the mean over tasks.

    references: row to the row, trained on one skill alone, that it is set against.
    """
    lines = []
    for row, alone in references.items():
        change = changes(scores, row, alone)
        together, apart = accuracies(scores, row), accuracies(scores, alone)
        for name, span in [*((task, [task]) for task in change), (MEAN_OVER_TASKS, sorted(change))]:
            difference = estimate([change[task].values for task in span], resampling)
            part = scores[(scores["row"] == row) & scores["task"].isin(span)]
            lines.append(
                (
                    row,
                    name,
                    alone,
                    float(sum(together[task].mean() for task in span) / len(span)),
                    float(sum(apart[task].mean() for task in span) / len(span)),
                    difference.mean,
                    difference.low,
                    difference.high,
                    verdict(difference),
                    difference.n,
                    part["seed"].nunique(),
                )
            )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def contrast(
    scores: pd.DataFrame, references: Mapping[str, str], pair: Sequence[str], resampling: Resampling
) -> dict[str, object]:
    """The first row's change less the second's, mean over the tasks of both.

    Returns diff, diff_low, diff_high, verdict, n and seeds. references: row to the row alone that it is set against;
    where that is one for both, it cancels.
    """
    if missing := [row for row in pair if row not in references]:
        raise UserError(
            f"params.yaml: expected a reference of the row '{missing[0]}', which a claim of skill_reports is about; "
            "name it under 'together'"
        )
    if len({references[row] for row in pair}) == 1:
        return advantage(scores, pair, resampling)
    first, second = (changes(scores, row, references[row]) for row in pair)
    tasks = sorted(set(first) & set(second))
    difference = estimate([first[task].less(second[task], task) for task in tasks], resampling)
    return _difference(difference, scores, pair)


def advantage(scores: pd.DataFrame, pair: Sequence[str], resampling: Resampling) -> dict[str, object]:
    """The first row's accuracy less the second's, mean over the tasks of both, as ``contrast`` returns it.

    It is also the difference of their changes against any common reference, which cancels.
    """
    first, second = (_cells(scores, row) for row in pair)
    tasks = sorted(set(first) & set(second))
    difference = estimate([paired(first[task], second[task], f"'{task}'") for task in tasks], resampling)
    return _difference(difference, scores, pair)


def _difference(difference: Estimate, scores: pd.DataFrame, pair: Sequence[str]) -> dict[str, object]:
    """seeds: the fewer of both rows'."""
    return {
        "diff": difference.mean,
        "diff_low": difference.low,
        "diff_high": difference.high,
        "verdict": verdict(difference),
        "n": difference.n,
        "seeds": min(scores.loc[scores["row"] == row, "seed"].nunique() for row in pair),
    }


def spans(scores: pd.DataFrame, row: str, tasks: Sequence[str], resampling: Resampling) -> tuple[float, float, float]:
    """A row's mean accuracy over some tasks, with its interval."""
    values = _cells(scores, row)
    mean, low, high, _ = estimate([bare(values[task].to_numpy()) for task in sorted(tasks)], resampling)
    return mean, low, high
