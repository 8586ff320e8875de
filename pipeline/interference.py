"""What training skills together costs each of them: its change against training it alone.

For a method and a skill, with the same test examples answered by the adapter trained on all skills (together) and by
the one trained on that skill (alone),

    change = accuracy together − accuracy alone

example by example, seeds averaged first, with the intervals of ``pipeline.evaluation``. A change that is worse is
interference. Of two methods, the one whose change is larger suffers less: the difference of their changes is paired
over examples, too. The limits are those of ``pipeline.evaluation``: the spread over seeds is not in the intervals.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.core.errors import UserError
from pipeline.evaluation import MEAN_OVER_TASKS, Resampling, estimate, paired, per_example, verdict

COLUMNS = ("row", "task", "together", "alone", "diff", "diff_low", "diff_high", "verdict", "n", "seeds")


def accuracies(scores: pd.DataFrame, row: str) -> dict[str, pd.Series]:
    """Task to accuracy per example, the mean over seeds, of one row of the scores."""
    groups = _of_row(scores, row).groupby("task", sort=False)
    return {str(task): per_example(group).mean(axis=1) for task, group in groups}


def _of_row(scores: pd.DataFrame, row: str) -> pd.DataFrame:
    part = scores[scores["row"] == row]
    if part.empty:
        raise UserError(f"params.yaml: expected cells of the row '{row}', got none; add them or correct skill_reports")
    return part


def changes(scores: pd.DataFrame, row: str, alone: str) -> dict[str, pd.Series]:
    """Task to change per example of ``row`` against the row ``alone``."""
    together, apart = accuracies(scores, row), accuracies(scores, alone)
    missing = sorted(set(together) - set(apart))
    if missing:
        raise UserError(f"params.yaml: expected cells of the row '{alone}' on {', '.join(missing)}; add them")
    return {task: _less(one, apart[task], task) for task, one in together.items()}


def _less(one: pd.Series, other: pd.Series, task: str) -> pd.Series:
    """The difference of two numbers of each example of a task."""
    return pd.Series(paired(one.to_frame(), other.to_frame(), f"'{task}'"), index=one.index)


def matrix(scores: pd.DataFrame, references: Mapping[str, str], resampling: Resampling) -> pd.DataFrame:
    """The interference matrix, a line per row and task and one per row for the mean over tasks.

    references: row to the row of the same method trained on one skill alone.
    """
    lines = []
    for row, alone in references.items():
        change = changes(scores, row, alone)
        together, apart = accuracies(scores, row), accuracies(scores, alone)
        for name, span in [*((task, [task]) for task in change), (MEAN_OVER_TASKS, sorted(change))]:
            found = estimate([change[task].to_numpy() for task in span], resampling)
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
    found = estimate([_less(one[task], other[task], task).to_numpy() for task in tasks], resampling)
    return {
        "diff": found.mean,
        "diff_low": found.low,
        "diff_high": found.high,
        "verdict": verdict(found),
        "n": found.n,
    }


def advantage(scores: pd.DataFrame, pair: Sequence[str], resampling: Resampling) -> dict[str, object]:
    """The first row's accuracy less the second's, mean over the tasks of both: diff, diff_low, diff_high, verdict, n.

    Whatever both are compared with cancels, and seeds are drawn, too (``pipeline.evaluation``).
    """
    cells = [{str(task): per_example(part) for task, part in _of_row(scores, row).groupby("task")} for row in pair]
    tasks = sorted(set(cells[0]) & set(cells[1]))
    found = estimate([paired(cells[0][task], cells[1][task], f"'{task}'") for task in tasks], resampling)
    return {
        "diff": found.mean,
        "diff_low": found.low,
        "diff_high": found.high,
        "verdict": verdict(found),
        "n": found.n,
    }


def spans(scores: pd.DataFrame, row: str, tasks: Sequence[str], resampling: Resampling) -> tuple[float, float, float]:
    """A row's mean accuracy over some tasks, with its interval."""
    values = accuracies(scores, row)
    found = estimate([values[task].to_numpy() for task in sorted(tasks)], resampling)
    return found.mean, found.low, found.high
