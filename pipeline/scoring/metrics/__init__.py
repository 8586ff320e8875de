"""What is said of many answers at once: metrics that are no mean over examples, as functions of two arrays.

Every function takes (n,) numbers read off answers and the n numbers expected, and returns one number in the metric's
own unit: a share or F1 in [0, 1], a correlation in [−1, 1]. Labels are numbers, too; what could not be read has a
number of its own, that of no label. ``huggingface`` has them as ``evaluate.Metric``.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.types import Score

Numbers = np.ndarray  # (n,)


def accuracy(given: Numbers, expected: Numbers) -> float:
    """The share of equal numbers."""
    return float(np.mean(given == expected))


def f1(given: Numbers, expected: Numbers) -> float:
    """Of the label 1: the harmonic mean of precision and recall; 0 where there is nothing to find."""
    said, true = given == 1, expected == 1
    both, either = np.sum(said & true), np.sum(said) + np.sum(true)
    return float(2 * both / either) if either else 0.0


def matthews(given: Numbers, expected: Numbers) -> float:
    """The correlation of two labellings, of any number of labels (as Gorodkin has it); 0 where either is constant."""
    labels = np.union1d(given, expected)
    said, true = given[:, None] == labels, expected[:, None] == labels
    count, same = len(given), float(np.sum(given == expected))
    covariance = count * same - float(said.sum(0) @ true.sum(0))
    spread = (count**2 - float(np.sum(said.sum(0) ** 2))) * (count**2 - float(np.sum(true.sum(0) ** 2)))
    return covariance / spread**0.5 if spread > 0 else 0.0


def pearson(given: Numbers, expected: Numbers) -> float:
    """The linear correlation; 0 where either is constant."""
    said, true = given - given.mean(), expected - expected.mean()
    spread = float(np.sqrt((said @ said) * (true @ true)))
    return float(said @ true) / spread if spread else 0.0


def spearman(given: Numbers, expected: Numbers) -> float:
    """The correlation of ranks, equal values sharing the mean of theirs."""
    return pearson(_ranks(given), _ranks(expected))


def _ranks(values: Numbers) -> Numbers:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


PAIRED: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def of_labels(name: str, given: Sequence[str | None], expected: Sequence[str]) -> float:
    """A metric of labels by its name; F1 is of the label ``yes``. None is no label."""
    known = ("accuracy", "f1", "matthews")
    if name not in known:
        raise UserError(f"expected a metric of labels, {', '.join(known)}, got '{name}'; correct params.yaml")
    return PAIRED[name](*label_numbers(given, expected))


def label_numbers(given: Sequence[str | None], expected: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Labels as numbers: 0 for ``no``, 1 for ``yes``, what else there is by the alphabet; −1 for None."""
    labels = ["no", "yes", *sorted({*given, *expected} - {"no", "yes", None}, key=str)]
    numbers = {label: float(number) for number, label in enumerate(labels)} | {None: -1.0}
    return np.array([numbers[label] for label in given]), np.array([numbers[label] for label in expected])


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """The means of what a scorer says: accuracy, the share it could not read, and its further metrics by name."""
    means = {
        "accuracy": float(np.mean([score.correct for score in scores])),
        "unparsed": float(np.mean([score.parsed is None for score in scores])),
    }
    for name in dict.fromkeys(name for score in scores for name in score.also):
        means[name] = float(np.mean([score.also[name] for score in scores if name in score.also]))
    return means
