"""From scores to what may be claimed: means, 95 % bootstrap intervals, paired differences, a verdict.

Scores come as a long frame, one line per cell and example, with the columns

    row      the line of a table it belongs to: base, lora, svf, ...
    task     the column of the table
    seed     of the training; cells of one row and task with different seeds are averaged, example by example
    cell     the name of the cell; several cells of one row, task *and seed* are alternatives: the best one counts
    id       the example
    correct, parsed, finished (bool), tokens (int)

The intervals are percentile bootstrap intervals over examples: B resamples of n examples with replacement, and the
2.5 % and 97.5 % quantiles of their means. Several seeds of a method are not more examples: an example's value is its
mean over the seeds, and the examples are resampled. A mean over tasks resamples each task by itself. A difference
pairs the same examples, so what makes an example hard for both cancels.

Limits: with all examples right (or all wrong) the interval has no width; the spread over seeds is not in it; the
best of several alternatives is chosen by the very scores it reports, in its own favour.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example

MEAN_OVER_TASKS = "mean_over_tasks"
BLOCK = 1 << 22  # indices drawn at once: bounds the memory, and changes no number


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


def resampled_means(values: np.ndarray, resampling: Resampling, stream: int = 0) -> np.ndarray:
    """The means of B resamples of ``values`` (n,), as (B,). Another ``stream`` draws independently."""
    generator = np.random.default_rng([resampling.seed, stream])
    rows = max(1, BLOCK // len(values))
    means = []
    for start in range(0, resampling.resamples, rows):
        shape = (min(rows, resampling.resamples - start), len(values))
        means.append(values[generator.integers(len(values), size=shape)].mean(axis=1))
    return np.concatenate(means)


def estimate(tasks: Sequence[np.ndarray], resampling: Resampling) -> Estimate:
    """The mean over tasks of the tasks' means. Each array holds one task's values, one per example."""
    if not tasks or any(len(values) == 0 for values in tasks):
        raise UserError(
            "expected at least one scored example of every task, got none; run the stages generate and score"
        )
    means = np.mean([resampled_means(values, resampling, stream) for stream, values in enumerate(tasks)], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(np.mean([values.mean() for values in tasks]))
    return Estimate(mean, float(low), float(high), sum(len(values) for values in tasks))


def paired(method: pd.Series, reference: pd.Series, name: str) -> pd.Series:
    """Method minus reference, example by example; both are indexed by example id. ``name``: for the error."""
    if set(method.index) != set(reference.index):
        odd = sorted(set(method.index) ^ set(reference.index))
        raise UserError(
            f"expected the same examples in both cells of {name}, but {len(odd)} stand in one only (e.g. '{odd[0]}'); "
            "run the stages generate and score again"
        )
    return method - reference.reindex(method.index)


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


def per_example(scores: pd.DataFrame) -> pd.Series:
    """Accuracy per example, the mean over the seeds: of one row and task, its chosen cells only."""
    sets = scores.groupby("cell", sort=False)["id"].agg(frozenset)
    if sets.nunique() > 1:
        raise UserError(
            f"expected the same examples in {' and '.join(sets.index)}, got others; run the stages generate and score"
        )
    return scores.groupby("id", sort=False)["correct"].mean()


def compare(scores: pd.DataFrame, resampling: Resampling, reference: str) -> pd.DataFrame:
    """Every row and task of a table, and every row's mean over tasks, beside the row ``reference``.

    Returns one line each with row, task, mean, low, high, n; diff, diff_low, diff_high and verdict (missing for the
    reference itself, and where it has no such task); seeds; unparsed and truncated (shares of completions); tokens
    (mean per completion); cells (names, those that count) and alternatives (how many the best was chosen from).
    The mean over tasks stands in a row that has all of the frame's tasks.
    """
    tasks = list(dict.fromkeys(scores["task"]))
    values: dict[tuple[str, str], pd.Series] = {}
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
            line |= estimate([values[row, task].to_numpy() for task in span], resampling)._asdict()
            if row != reference and all((reference, task) in values for task in span):
                pairs = [paired(values[row, task], values[reference, task], f"'{task}'") for task in span]
                difference = estimate([pair.to_numpy() for pair in pairs], resampling)
                line |= {"diff": difference.mean, "diff_low": difference.low, "diff_high": difference.high}
                line["verdict"] = verdict(difference)
            line |= {
                "seeds": own["seed"].nunique(dropna=False),
                "unparsed": float(1 - own["parsed"].mean()),
                "truncated": float(1 - own["finished"].mean()),
                "tokens": float(own["tokens"].mean()),
                "cells": " ".join(dict.fromkeys(own["cell"])),
                "alternatives": max(alternatives[row, task] for task in span),
            }
            lines.append(line)
    columns = ["row", "task", "mean", "low", "high", "n", "diff", "diff_low", "diff_high", "verdict", "seeds"]
    return pd.DataFrame(lines, columns=[*columns, "unparsed", "truncated", "tokens", "cells", "alternatives"])


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
