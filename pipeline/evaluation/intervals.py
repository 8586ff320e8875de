"""From scores to what may be claimed: means, 95 % bootstrap intervals, paired differences, a verdict.

Scores come as a long frame, one line per cell and example, with the columns

    row      the line of a table it belongs to: base, lora, svf, ...
    task     the column of the table
    seed     of the training; cells of one row and task with different seeds are averaged, example by example
    cell     the name of the cell; several cells of one row, task *and seed* are alternatives: the best one counts
    id       the example
    correct, parsed, finished (bool), tokens (int)

``parsed`` is whether the answer could be read, ``finished`` whether it ended before the token limit.

The intervals are percentile bootstrap intervals over examples: B resamples of n examples with replacement, and the
2.5 % and 97.5 % quantiles of their means. Several seeds of a method are not more examples: an example has one value for
each seed. Where there are several seeds, each resample draws them with replacement as well, so that the interval covers
prompts and seeds (Owen's pigeonhole bootstrap, doi 10.1214/07-AOAS122). A mean over tasks resamples each task by
itself. A difference pairs the same examples, so that whatever makes an example hard for both methods cancels; the seeds
of two methods have nothing in common and are drawn independently.

Metrics beside accuracy are in ``pipeline.evaluation.further``; when a verdict is withheld, in ``verdicts``.

The p of a difference is the bootstrap's: twice the smaller share of resamples on either side of zero, counted as
(k + 1) / (B + 1), so that it is never 0. ``holm`` adjusts the p of differences that are read together.

Limits: with all examples right (or all wrong) the interval has no width; a bootstrap of S seeds is too narrow by about
√((S − 1) / S); the best of several alternatives is chosen by the very scores it reports, in its own favour.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.evaluation.rules import Rule
from pipeline.evaluation.verdicts import BETTER, UNDECIDED, WORSE, Beside, Side, judged

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
        return BETTER
    return WORSE if difference.high < 0 else UNDECIDED


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


COLUMNS = (
    *("row", "task", "mean", "low", "high", "n"),
    *("diff", "diff_low", "diff_high", "verdict", "reason"),
    *("read_diff", "read_low", "read_high", "read_n"),
    *("rule", "rule_mean", "rule_diff", "rule_low", "rule_high"),
    *("seeds", "unparsed", "truncated", "tokens", "cells", "alternatives", "p", "p_holm"),
)


@dataclass(frozen=True)
class Chosen:
    """The cells that count, of one row and task.

    scores: of these cells. values: whether an answer is right, examples by cells. read: whether it was read and
    finished, in the same form. alternatives: how many cells each of them was chosen from.
    """

    scores: pd.DataFrame
    values: pd.DataFrame
    read: pd.DataFrame
    alternatives: int

    @property
    def losses(self) -> tuple[float, float, float]:
        """The shares of answers that were cut, that could not be read, and that were either."""
        finished, parsed = self.scores["finished"], self.scores["parsed"]
        return tuple(float(1 - told.mean()) for told in (finished, parsed, finished & parsed))  # type: ignore[return-value]

    @classmethod
    def of(cls, scores: pd.DataFrame) -> "Chosen":
        """Those of the scores of one row and task."""
        cells = chosen_cells(scores)
        own = scores[scores["cell"].isin(cells)]
        own = own.assign(read=own["parsed"].astype(bool) & own["finished"].astype(bool))
        return cls(own, per_example(own), per_example(own, "read"), scores["cell"].nunique() // len(cells))


@dataclass(frozen=True)
class Comparing:
    """How the rows of a table are compared.

    reference: the row that the others stand beside. rules: task to its best rule without a model. untrained: the cells
    whose adapter is as it began.
    """

    resampling: Resampling
    reference: str
    rules: Mapping[str, Rule] = field(default_factory=dict)
    untrained: Collection[str] = ()

    def line(self, row: str, own: Mapping[str, Chosen], other: Mapping[str, Chosen] | None) -> dict[str, Any]:
        """The numbers of a row over some tasks. own: its cells by task; other: the reference's, if it has all."""
        scores = pd.concat([chosen.scores for chosen in own.values()])
        line = dict(estimate([bare(chosen.values.to_numpy()) for chosen in own.values()], self.resampling)._asdict())
        line |= self._beside_rules(own)
        if other is not None:
            line |= self._difference(own, other, line)
        return line | {
            "seeds": scores["seed"].nunique(dropna=False),
            "unparsed": float(1 - scores["parsed"].mean()),
            "truncated": float(1 - scores["finished"].mean()),
            "tokens": float(scores["tokens"].mean()),
            "cells": " ".join(dict.fromkeys(scores["cell"])),
            "alternatives": max(chosen.alternatives for chosen in own.values()),
        }

    def _difference(
        self, own: Mapping[str, Chosen], other: Mapping[str, Chosen], line: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A row less the reference: on all examples, and on those that all of both sides' answers can be read of."""
        pairs = [paired(own[task].values, other[task].values, f"'{task}'") for task in own]
        difference, p = estimate_with_p(pairs, self.resampling)
        rule = Beside(line["rule"], line["rule_mean"], line["rule_low"]) if "rule" in line else None
        word, reason = judged(verdict(difference), self._side("", own), self._side(self.reference, other), rule)
        found: dict[str, Any] = {"diff": difference.mean, "diff_low": difference.low, "diff_high": difference.high}
        found |= {"verdict": word, "reason": reason, "p": p}
        read = [self._both_read(own[task], other[task]) for task in own]
        kept = [pair[both] for pair, both in zip(pairs, read, strict=True)]
        found["read_n"] = sum(len(pair) for pair in kept)
        if all(len(pair) for pair in kept):
            of_read = estimate(kept, self.resampling)
            found |= {"read_diff": of_read.mean, "read_low": of_read.low, "read_high": of_read.high}
        return found

    @staticmethod
    def _both_read(own: Chosen, other: Chosen) -> np.ndarray:
        """Which examples every seed of both sides read and finished, (n,)."""
        theirs = other.read.reindex(own.read.index).to_numpy()
        return np.asarray(np.hstack([own.read.to_numpy(), theirs]).all(axis=1))

    def _side(self, who: str, cells: Mapping[str, Chosen]) -> Side:
        names = {cell for chosen in cells.values() for cell in chosen.values}
        return Side(who, names <= set(self.untrained), {task: chosen.losses for task, chosen in cells.items()})

    def _beside_rules(self, own: Mapping[str, Chosen]) -> dict[str, Any]:
        """A row less the best rule of each of its tasks that has one."""
        known = {task: self.rules[task] for task in own if task in self.rules}
        if not known:
            return {}
        values = {task: rule.on(own[task].values.index) for task, rule in known.items()}
        difference = estimate(
            [bare(own[task].values.to_numpy() - right[:, None]) for task, right in values.items()], self.resampling
        )
        names = list(dict.fromkeys(rule.name for rule in known.values()))
        found: dict[str, Any] = {"rule": names[0] if len(names) == 1 else "the best rule of each task"}
        found["rule_mean"] = float(np.mean([right.mean() for right in values.values()]))
        return found | {"rule_diff": difference.mean, "rule_low": difference.low, "rule_high": difference.high}


def chosen_of(scores: pd.DataFrame) -> dict[tuple[str, str], Chosen]:
    """The cells that count, of every (row, task) of a table."""
    groups = scores.groupby(["row", "task"], sort=False)
    return {(str(row), str(task)): Chosen.of(group) for (row, task), group in groups}


def compare(
    scores: pd.DataFrame,
    resampling: Resampling,
    reference: str,
    *,
    rules: Mapping[str, Rule] | None = None,
    untrained: Collection[str] = (),
    chosen: Mapping[tuple[str, str], Chosen] | None = None,
) -> pd.DataFrame:
    """Every row and task of a table, and every row's mean over tasks, beside the row ``reference``.

    rules: task to its best rule without a model. untrained: the cells whose adapter validation kept at step 0.
    chosen: ``chosen_of(scores)``, or of more rows, where it is known.

    Returns one line each with row, task, mean, low, high, n; diff, diff_low, diff_high, verdict, reason, p and p_holm
    (missing for the reference itself, and where it has no such task); read_diff, read_low, read_high and read_n (the
    same difference on the examples that every seed of both sides read and finished); rule, rule_mean, rule_diff,
    rule_low and rule_high (the best rule without a model, and the row less it); seeds; unparsed and truncated (shares
    of completions); tokens (mean per completion); cells (names, those that count) and alternatives (how many the best
    was chosen from).

    The verdict is one of ``verdicts.VERDICTS``; reason says why one is withheld, and is empty otherwise. The mean over
    tasks stands in a row that has all of the frame's tasks. p_holm reads all differences of the frame together, but
    those of a mean over tasks, which are the same answers again.
    """
    tasks = list(dict.fromkeys(scores["task"]))
    comparing = Comparing(resampling, reference, rules or {}, untrained)
    cells = chosen_of(scores) if chosen is None else chosen
    lines = []
    for row in dict.fromkeys(scores["row"]):
        present = [task for task in tasks if (row, task) in cells]
        spans = [(task, [task]) for task in present]
        if len(tasks) > 1 and present == tasks:
            spans.append((MEAN_OVER_TASKS, sorted(tasks)))  # so the order of the columns changes no number
        for name, span in spans:
            own, other = {task: cells[row, task] for task in span}, None
            if row != reference and all((reference, task) in cells for task in span):
                other = {task: cells[reference, task] for task in span}
            lines.append({"row": row, "task": name, **comparing.line(row, own, other)})
    together = [line for line in lines if "p" in line and line["task"] != MEAN_OVER_TASKS]
    for line, adjusted in zip(together, holm([line["p"] for line in together]), strict=True):
        line["p_holm"] = adjusted
    return pd.DataFrame(lines, columns=list(COLUMNS))
