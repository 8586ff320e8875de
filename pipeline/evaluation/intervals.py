"""From scores to what may be claimed: means, 95 % bootstrap intervals, paired differences, a verdict.

Scores come as a long frame, one line per cell and example, with the columns

    row      the line of a table it belongs to: base, lora, svf, ...
    task     the column of the table
    seed     of the training; cells of one row and task with different seeds are averaged, example by example
    cell     the name of the cell; several cells of one row, task *and seed* are alternatives: the best one counts
    id       the example
    correct, parsed, finished (bool), tokens (int)

The intervals are percentile bootstrap intervals over examples: B resamples of n examples with replacement, and the
2.5 % and 97.5 % quantiles of their means. Several seeds of a method are not more examples: an example has one value for
each seed. Where there are several seeds, each resample draws them with replacement as well, so that the interval covers
prompts and seeds (Owen's pigeonhole bootstrap, doi 10.1214/07-AOAS122). A mean over tasks resamples each task by
itself. A difference pairs the same examples, so that whatever makes an example hard for both methods cancels; the seeds
of two methods have nothing in common and are drawn independently.

Metrics beside accuracy are in ``pipeline.evaluation.further``.

The p of a difference is the bootstrap's: twice the smaller share of resamples on either side of zero, counted as
(k + 1) / (B + 1), so that it is never 0. ``holm`` adjusts the p of differences that are read together.

Limits: with all examples right (or all wrong) the interval has no width; a bootstrap of S seeds is too narrow by about
√((S − 1) / S); the best of several alternatives is chosen by the very scores it reports, in its own favour.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example

MEAN_OVER_TASKS = "mean_over_tasks"
BLOCK = 1 << 22  # indices drawn at once: a bound on memory that changes no number
SEEDS = 1  # the stream that draws seeds, apart from the one that draws examples


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
    """B resamples of n examples as their places, some resamples at a time: arrays of (some, n).

    stream: another one draws independently. width: how many numbers the caller holds for each place; it decides how
    many resamples come at a time, and changes none of them.
    """
    generator = np.random.default_rng([resampling.seed, stream])
    rows = max(1, BLOCK // (n * width))
    for start in range(0, resampling.resamples, rows):
        yield generator.integers(n, size=(min(rows, resampling.resamples - start), n))


def over_seeds(resampled: np.ndarray, resampling: Resampling, stream: int = 0) -> np.ndarray:
    """For each of B resamples the mean over seeds drawn with replacement: (B, seeds, ...) to (B,)."""
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
    """The means of B resamples, as (B,). values: one number for each example (n,), or several (n, seeds, ...)."""
    width = int(np.prod(values.shape[1:]))
    means = [values[rows].mean(axis=1) for rows in resampled_rows(len(values), resampling, stream, width)]
    return over_seeds(np.concatenate(means), resampling, stream)


def estimate(tasks: Sequence[np.ndarray], resampling: Resampling) -> Estimate:
    """The mean over tasks of each task's mean. tasks: the values of each, as ``resampled_means`` takes them."""
    return estimate_with_p(tasks, resampling)[0]


def estimate_with_p(tasks: Sequence[np.ndarray], resampling: Resampling) -> tuple[Estimate, float]:
    """What ``estimate`` returns, and the two-sided p that the mean is zero."""
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
    """The two-sided p that a value is zero, from its resamples (B,)."""
    side = min(int(np.sum(resampled <= 0)), int(np.sum(resampled >= 0)))
    return min(1.0, 2 * (side + 1) / (len(resampled) + 1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p (Scandinavian Journal of Statistics 6, 1979), which bounds the chance of any false finding."""
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
    """(n, 1, ...) as (n,): where there is one seed, none are drawn."""
    return values.reshape(len(values)) if values.size == len(values) else values


def verdict(difference: Estimate) -> str:
    """``better`` or ``worse`` where the interval of a difference leaves out zero, else ``undecided``."""
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "undecided"


def chosen_cells(scores: pd.DataFrame) -> list[str]:
    """The cells that count, of one row and task: for each seed the most accurate of its alternatives."""
    means = scores.groupby(["seed", "cell"], sort=False, dropna=False)["correct"].mean().reset_index()
    best = means.sort_values("correct", ascending=False, kind="stable").drop_duplicates("seed")
    return list(best.sort_index()["cell"])


def per_example(scores: pd.DataFrame, column: str = "correct") -> pd.DataFrame:
    """A column of the chosen cells of one row and task, as numbers: examples (in their order) by cells (by name)."""
    sets = scores.groupby("cell", sort=False)["id"].agg(frozenset)
    if sets.nunique() > 1:
        raise UserError(
            f"expected the same examples in {' and '.join(sets.index)}, got others; run the stages generate and score"
        )
    columns = {str(cell): group.set_index("id")[column].astype(float) for cell, group in scores.groupby("cell")}
    ids = next(iter(columns.values())).index
    return pd.DataFrame({cell: values.reindex(ids) for cell, values in columns.items()})


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


def trivial_baselines(examples: Sequence[Example]) -> Mapping[str, float]:
    """The accuracies that need no model: of the commonest answer (``majority``) and of a random choice (``random``).

    They are read off the examples' meta: ``answer``, a text, and for ``random`` a list of texts that holds the answer,
    whatever its key. Without them the accuracies are left out: tasks judged by unit tests have no single answer.
    """
    answers = [example.meta.get("answer") for example in examples]
    if not answers or not all(isinstance(answer, str) for answer in answers):
        return {}
    shares = {"majority": Counter(answers).most_common(1)[0][1] / len(answers)}
    choices = [
        [value for value in example.meta.values() if isinstance(value, list) and example.meta["answer"] in value]
        for example in examples
    ]
    if all(choices):
        shares["random"] = float(np.mean([1 / len(lists[0]) for lists in choices]))
    return shares
