"""From scores to what may be claimed: means, 95 % bootstrap intervals, paired differences, a verdict.

Scores come as a long frame, one line per cell and example, with the columns

    row      the line of a table it belongs to: base, lora, svf, ...
    task     the column of the table
    seed     of the training; cells of one row and task with different seeds are averaged, example by example
    cell     the name of the cell; several cells of one row, task *and seed* are alternatives: the best one counts
    id       the example
    correct, parsed, finished (bool), tokens (int)

and, where a task has further metrics, those that the stage ``score`` adds.

The intervals are percentile bootstrap intervals over examples: B resamples of n examples with replacement, and the
2.5 % and 97.5 % quantiles of their means. Several seeds of a method are not more examples: an example has one value for
each seed, and where there are several each resample draws the seeds with replacement, too, so that the interval is one
over prompts and seeds (Owen's pigeonhole bootstrap, doi 10.1214/07-AOAS122). A mean over tasks resamples each task by
itself. A difference pairs the same examples, so what makes an example hard for both cancels; seeds of two methods have
nothing in common, and are drawn apart.

Metrics that are no mean over examples (``pipeline.scoring.metrics``) are computed of each resample anew.

A difference's p is the bootstrap's: twice the smaller share of resamples on either side of zero, by the rule of
(k + 1) / (B + 1), so that it is never 0. ``holm`` adjusts the p of differences that are read together.

Limits: with all examples right (or all wrong) the interval has no width; a bootstrap of S seeds is too narrow by about
√((S − 1) / S); the best of several alternatives is chosen by the very scores it reports, in its own favour.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.scoring.metrics import PAIRED

MEAN_OVER_TASKS = "mean_over_tasks"
BLOCK = 1 << 22  # indices drawn at once: bounds the memory, and changes no number
SEEDS = 1  # of the stream that draws seeds, apart from the one that draws examples


class Resampling(Section):
    """resamples: B, how many bootstrap samples. seed: of the drawing."""

    resamples: int
    seed: int


class Estimate(NamedTuple):
    """A mean of n values with its 95 % interval, in the values' own unit."""

    mean: float
    low: float
    high: float
    n: int


def resampled_rows(n: int, resampling: Resampling, stream: int, width: int = 1) -> Iterator[np.ndarray]:
    """B resamples of n examples as their places, (some, n) at a time. Another ``stream`` draws independently.

    width: numbers that are held for each place, which bounds how many come at a time and changes none.
    """
    generator = np.random.default_rng([resampling.seed, stream])
    rows = max(1, BLOCK // (n * width))
    for start in range(0, resampling.resamples, rows):
        yield generator.integers(n, size=(min(rows, resampling.resamples - start), n))


def over_seeds(resampled: np.ndarray, resampling: Resampling, stream: int = 0) -> np.ndarray:
    """(B, seeds, ...) numbers of B resamples as (B,): the mean of seeds drawn with replacement, for each resample."""
    generator = np.random.default_rng([resampling.seed, stream, SEEDS])
    while resampled.ndim > 1:
        seeds = resampled.shape[1]
        drawn = (
            np.zeros((len(resampled), 1), int) if seeds == 1 else generator.integers(seeds, size=resampled.shape[:2])
        )
        drawn = drawn.reshape(*drawn.shape, *[1] * (resampled.ndim - 2))
        resampled = np.take_along_axis(resampled, drawn, axis=1).mean(axis=1)
    return resampled


def resampled_means(values: np.ndarray, resampling: Resampling, stream: int = 0) -> np.ndarray:
    """The means of B resamples of ``values``, as (B,): (n,) one for each example, or (n, seeds, ...) several."""
    width = int(np.prod(values.shape[1:]))
    means = [values[rows].mean(axis=1) for rows in resampled_rows(len(values), resampling, stream, width)]
    return over_seeds(np.concatenate(means), resampling, stream)


def estimate(tasks: Sequence[np.ndarray], resampling: Resampling) -> Estimate:
    """The mean over tasks of the tasks' means. Each array: one task's values, as ``resampled_means`` takes them."""
    return estimate_with_p(tasks, resampling)[0]


def estimate_with_p(tasks: Sequence[np.ndarray], resampling: Resampling) -> tuple[Estimate, float]:
    """The same, and the p of its being zero."""
    if not tasks or any(len(values) == 0 for values in tasks):
        raise UserError(
            "expected at least one scored example of every task, got none; run the stages generate and score"
        )
    means = np.mean([resampled_means(values, resampling, stream) for stream, values in enumerate(tasks)], axis=0)
    mean = float(np.mean([values.mean() for values in tasks]))
    return interval(mean, means, sum(len(values) for values in tasks)), p_of(means)


def interval(value: float, resampled: np.ndarray, n: int) -> Estimate:
    """A value with the 95 % interval of its resamples (B,)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def p_of(resampled: np.ndarray) -> float:
    """The p, two-sided, of a value's being zero, from its resamples (B,)."""
    side = min(int(np.sum(resampled <= 0)), int(np.sum(resampled >= 0)))
    return min(1.0, 2 * (side + 1) / (len(resampled) + 1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p (Scandinavian Journal of Statistics 6, 1979): it bounds the chance of any false finding."""
    adjusted = [0.0] * len(p)
    least = 0.0
    for place, which in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - place) * p[which]))
        adjusted[which] = least
    return adjusted


def paired(method: pd.DataFrame, reference: pd.DataFrame, name: str) -> np.ndarray:
    """Method minus reference, example by example, for each pair of their seeds: (n,), or (n, seeds, other seeds).

    Both as ``per_example`` returns them. ``name``: for the error.
    """
    if set(method.index) != set(reference.index):
        odd = sorted(set(method.index) ^ set(reference.index))
        raise UserError(
            f"expected the same examples in both cells of {name}, but {len(odd)} stand in one only (e.g. '{odd[0]}'); "
            "run the stages generate and score again"
        )
    differences = method.to_numpy()[:, :, None] - reference.reindex(method.index).to_numpy()[:, None, :]
    return bare(differences)


def bare(values: np.ndarray) -> np.ndarray:
    """(n, 1, ...) as (n,): no seeds to draw where there is one."""
    return values.reshape(len(values)) if values.size == len(values) else values


def verdict(difference: Estimate) -> str:
    """What a difference's interval says: ``better`` or ``worse`` if it leaves out zero, else ``undecided``."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "undecided"


def chosen_cells(scores: pd.DataFrame) -> list[str]:
    """Of one row and task: the cell that counts for each seed, the most accurate of its alternatives."""
    means = scores.groupby(["seed", "cell"], sort=False, dropna=False)["correct"].mean().reset_index()
    best = means.sort_values("correct", ascending=False, kind="stable").drop_duplicates("seed")
    return list(best.sort_index()["cell"])


def per_example(scores: pd.DataFrame, column: str = "correct") -> pd.DataFrame:
    """A column of one row's and task's chosen cells: examples, as they stand, by cells, by name; as numbers."""
    sets = scores.groupby("cell", sort=False)["id"].agg(frozenset)
    if sets.nunique() > 1:
        raise UserError(
            f"expected the same examples in {' and '.join(sets.index)}, got others; run the stages generate and score"
        )
    values = {str(cell): group.set_index("id")[column].astype(float) for cell, group in scores.groupby("cell")}
    first = next(iter(values.values()))
    return pd.DataFrame({cell: one.reindex(first.index) for cell, one in values.items()})


def compare(scores: pd.DataFrame, resampling: Resampling, reference: str) -> pd.DataFrame:
    """Every row and task of a table, and every row's mean over tasks, beside the row ``reference``.

    Returns one line each with row, task, mean, low, high, n; diff, diff_low, diff_high, verdict, p and p_holm (missing
    for the reference itself, and where it has no such task); seeds; unparsed and truncated (shares of completions);
    tokens (mean per completion); cells (names, those that count) and alternatives (how many the best was chosen from).
    The mean over tasks stands in a row that has all of the frame's tasks. p_holm reads all differences of the frame
    together, but those of a mean over tasks, which are the same answers again.
    """
    tasks = list(dict.fromkeys(scores["task"]))
    values: dict[tuple[str, str], pd.DataFrame] = {}
    kept: dict[tuple[str, str], pd.DataFrame] = {}
    alternatives: dict[tuple[str, str], int] = {}
    for (row, task), group in scores.groupby(["row", "task"], sort=False):
        place = (str(row), str(task))
        cells = chosen_cells(group)
        kept[place] = group[group["cell"].isin(cells)]
        values[place] = per_example(kept[place])
        alternatives[place] = group["cell"].nunique() // len(cells)
    lines = []
    for row in dict.fromkeys(scores["row"]):
        present = [task for task in tasks if (row, task) in values]
        spans = [(task, [task]) for task in present]
        if len(tasks) > 1 and present == tasks:
            spans.append((MEAN_OVER_TASKS, sorted(tasks)))  # so the order of the columns changes no number
        for name, span in spans:
            own = pd.concat([kept[row, task] for task in span])
            line = {"row": row, "task": name}
            line |= estimate([bare(values[row, task].to_numpy()) for task in span], resampling)._asdict()
            if row != reference and all((reference, task) in values for task in span):
                pairs = [paired(values[row, task], values[reference, task], f"'{task}'") for task in span]
                difference, p = estimate_with_p(pairs, resampling)
                line |= {"diff": difference.mean, "diff_low": difference.low, "diff_high": difference.high}
                line |= {"verdict": verdict(difference), "p": p}
            line |= {
                "seeds": own["seed"].nunique(dropna=False),
                "unparsed": float(1 - own["parsed"].mean()),
                "truncated": float(1 - own["finished"].mean()),
                "tokens": float(own["tokens"].mean()),
                "cells": " ".join(dict.fromkeys(own["cell"])),
                "alternatives": max(alternatives[row, task] for task in span),
            }
            lines.append(line)
    together = [line for line in lines if "p" in line and line["task"] != MEAN_OVER_TASKS]
    for line, adjusted in zip(together, holm([line["p"] for line in together]), strict=True):
        line["p_holm"] = adjusted
    columns = ["row", "task", "mean", "low", "high", "n", "diff", "diff_low", "diff_high", "verdict", "seeds"]
    columns += ["unparsed", "truncated", "tokens", "cells", "alternatives", "p", "p_holm"]
    return pd.DataFrame(lines, columns=columns)


ALSO = "also."  # what a column of a further metric, one number for each example, begins with


def further(scores: pd.DataFrame, resampling: Resampling, reference: str) -> pd.DataFrame:
    """The further metrics of every row and task, beside the row ``reference``: one line each.

    They are the columns ``also.<name>``, and for what the column ``metrics`` names, functions of ``given`` and
    ``expected``. Returns row, task, metric, mean, low, high, n, diff, diff_low, diff_high, verdict and seeds, as
    ``compare`` does; of a row's alternatives the most accurate counts here, too.
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
    found = [Metric(column.removeprefix(ALSO), column) for column in columns]
    named: list[str] = list(scores["metrics"].dropna().unique()) if "metrics" in scores else []
    return found + [Metric(name, "given") for names in named for name in names.split()]


def win_rates(judged: Sequence[Mapping[str, Any]], resampling: Resampling) -> list[dict[str, Any]]:
    """What the stage ``judge`` wrote, with intervals over the instructions and over the annotated pairs. Fractions."""
    lines = []
    for one in judged:
        won = estimate([np.array([value - 1 for value in one["preferences"] if value is not None])], resampling)
        agreed = estimate([np.array(one["agreed"], float)], resampling)
        lines.append(
            {
                **{key: one[key] for key in ("cell", "judge", "reference")},
                **{"win_rate": won.mean, "low": won.low, "high": won.high, "n": won.n},
                "controlled": one["length_controlled_win_rate"],
                **{"agreement": agreed.mean, "agreement_low": agreed.low, "agreement_high": agreed.high},
                **{"agreement_n": agreed.n, "agreement_draws": one["drawn"]},
            }
        )
    return lines


def trivial_baselines(examples: Sequence[Example]) -> Mapping[str, float]:
    """What needs no model: accuracy of the commonest answer (``majority``) and of guessing among choices (``random``).

    Reads the examples' meta: ``answer``, a text, and for ``random`` a list of texts that holds the answer, whatever
    its key. What the meta has not got is left out (tasks judged by unit tests have no single answer).
    """
    answers = [example.meta.get("answer") for example in examples]
    if not answers or not all(isinstance(answer, str) for answer in answers):
        return {}
    found = {"majority": Counter(answers).most_common(1)[0][1] / len(answers)}
    choices = [
        [value for value in example.meta.values() if isinstance(value, list) and example.meta["answer"] in value]
        for example in examples
    ]
    if all(choices):
        found["random"] = float(np.mean([1 / len(lists[0]) for lists in choices]))
    return found
