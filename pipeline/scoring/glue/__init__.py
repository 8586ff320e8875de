"""GLUE's own metrics (arXiv 1804.07461), from labels that were read off answers.

Accuracy; F1 of the label ``positive`` beside it for MRPC and QQP; Matthews' correlation for CoLA; Pearson's and
Spearman's correlation for STS-B. An answer that gives no label counts as wrong, whatever the metric.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import groupby

from pipeline.core.errors import UserError
from pipeline.core.types import Score

SPREAD = 5.0  # STS-B's similarities: from 0 to this


def score_label(id: str, answer: str, expected: str, labels: Sequence[str]) -> Score:
    """Correct if the first of the labels that stands in the answer, as a word in any case, is the one expected."""
    found = re.search(rf"\b(?:{'|'.join(map(re.escape, labels))})\b", answer, re.IGNORECASE)
    label = found[0].lower() if found else None
    return Score(id=id, value=float(label == expected), correct=label == expected, parsed=label)


def score_similarity(id: str, answer: str, expected: float) -> Score:
    """The answer's first number. value: 1 less its distance, as a share of the spread. correct: within half a point."""
    found = re.search(r"-?\d+(?:\.\d+)?", answer)
    given = min(max(float(found[0]), 0.0), SPREAD) if found else None
    distance = SPREAD if given is None else abs(given - expected)
    return Score(
        id=id, value=1 - distance / SPREAD, correct=distance <= 0.5, parsed=None if given is None else f"{given:g}"
    )


def accuracy(given: Sequence[str | None], expected: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(given, expected, strict=True)) / len(expected)


def f1(given: Sequence[str | None], expected: Sequence[str], positive: str) -> float:
    pairs = list(zip(given, expected, strict=True))
    both = sum(one == other == positive for one, other in pairs)
    wrong = sum((one == positive) != (other == positive) for one, other in pairs)
    return 2 * both / (2 * both + wrong) if both or wrong else 0.0


def matthews(given: Sequence[str | None], expected: Sequence[str]) -> float:
    """The correlation of two labellings, of any number of labels (Gorodkin's generalisation); no label is a label."""
    pairs = list(zip(given, expected, strict=True))
    labels = {label for pair in pairs for label in pair}
    count = len(pairs)
    said = {label: sum(one == label for one, _ in pairs) for label in labels}
    true = {label: sum(other == label for _, other in pairs) for label in labels}
    covariance = count * sum(one == other for one, other in pairs) - sum(said[label] * true[label] for label in labels)
    spread = (count**2 - sum(value**2 for value in said.values())) * (count**2 - sum(v**2 for v in true.values()))
    return covariance / math.sqrt(spread) if spread else 0.0


def pearson(given: Sequence[float], expected: Sequence[float]) -> float:
    mean, other_mean = sum(given) / len(given), sum(expected) / len(expected)
    one, other = [value - mean for value in given], [value - other_mean for value in expected]
    spread = math.sqrt(sum(value**2 for value in one) * sum(value**2 for value in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / spread if spread else 0.0


def spearman(given: Sequence[float], expected: Sequence[float]) -> float:
    return pearson(_ranks(given), _ranks(expected))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    ranks = [0.0] * len(values)
    start = 1
    for _, group in groupby(sorted(range(len(values)), key=values.__getitem__), key=values.__getitem__):
        places = list(group)
        for place in places:
            ranks[place] = start + (len(places) - 1) / 2
        start += len(places)
    return ranks


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def measure(name: str, given: Sequence[str | None], expected: Sequence[str]) -> float:
    """A metric of labels by its name; F1 is of the label ``yes``."""
    known = ("accuracy", "f1", "matthews")
    if name not in known:
        raise UserError(f"expected a metric of labels, {', '.join(known)}, got '{name}'; correct params.yaml")
    return f1(given, expected, "yes") if name == "f1" else METRICS[name](given, expected)
