"""GLUE's answers (arXiv 1804.07461): a label, or a similarity; and as numbers, for the metrics that need all of them.

Accuracy is the mean of the scores. Beside it stand F1 for MRPC and QQP, Matthews' correlation for CoLA, and Pearson's
and Spearman's for STS-B, all of pairs of numbers (``pipeline.scoring.metrics``). An answer without a label is wrong in
every metric.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.core.types import Score

SPREAD = 5.0  # STS-B's similarities: from 0 to this


class Pairs(NamedTuple):
    """What was read off each answer and what was expected, as numbers."""

    given: list[float]
    expected: list[float]


def score_label(id: str, answer: str, expected: str, labels: Sequence[str]) -> Score:
    """Correct if the first label that stands in the answer, as a word in any case, is the expected label."""
    named = re.search(rf"\b(?:{'|'.join(map(re.escape, labels))})\b", answer, re.IGNORECASE)
    label = named[0].lower() if named else None
    return Score(
        id=id,
        value=float(label == expected),
        correct=label == expected,
        parsed=label,
        marked=named is not None and _in_first_sentence(answer, named),
    )


def score_similarity(id: str, answer: str, expected: float) -> Score:
    """Correct if the answer's first number is within half a point. value: 1 − its distance / ``SPREAD``."""
    number = re.search(r"-?\d+(?:\.\d+)?", answer)
    given = min(max(float(number[0]), 0.0), SPREAD) if number else None
    distance = SPREAD if given is None else abs(given - expected)
    return Score(
        id=id,
        value=1 - distance / SPREAD,
        correct=distance <= 0.5,
        parsed=None if given is None else f"{given:g}",
        marked=number is not None and _in_first_sentence(answer, number),
    )


def _in_first_sentence(answer: str, read: re.Match[str]) -> bool:
    """Whether what was read stands in the answer's first sentence, where a label or a number alone is asked for."""
    return not re.search(r"[.!?]\s|\n", answer[: read.start()].lstrip())


def pairs(scores: Sequence[Score], expected: Sequence[str], labels: Sequence[str]) -> Pairs:
    """Labels as their numbers, that of no label −1; similarities as they are, an unread one as the middle."""
    if not labels:
        given = [SPREAD / 2 if score.parsed is None else float(score.parsed) for score in scores]
        return Pairs(given, [float(value) for value in expected])
    numbers = {label: float(number) for number, label in enumerate(labels)}
    given = [-1.0 if score.parsed is None else numbers[score.parsed] for score in scores]
    return Pairs(given, [numbers[label] for label in expected])
