"""Which of two answers is better: win rates against a reference model, and what a judge's word is worth.

Everything here is arithmetic on preferences as AlpacaEval's annotations hold them: 1 for the reference's answer, 2 for
the model's, between them a draw (1.5; AlpacaEval v1 writes 0 for it). Judges are in ``judges``; a win rate is never
reported without how often its judge agrees with GPT-4's annotations of the same kind.

The length-controlled win rate follows AlpacaEval 2 (arXiv 2404.04475): a logistic regression of the preference on the
model and on tanh of the standardised difference of lengths, read off at equal lengths. **Deviations**: one model is
fitted by itself, so there is no term for an instruction's difficulty, which is shared among the leaderboard's models
there; the ridge of 1e-3 keeps a separable fit finite.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DRAW = 1.5
RIDGE = 1e-3


class Agreement(NamedTuple):
    """share: of pairs on which two annotators say the same, draws left out. n: such pairs. drawn: those left out."""

    share: float
    n: int
    drawn: int


def answered(answer: str) -> bool:
    """Whether there is an answer to compare at all."""
    return bool(answer.strip())


def preference(annotation: Mapping[str, Any]) -> float | None:
    """What an annotation of AlpacaEval's prefers: 1 to 2; None where it says nothing."""
    value = annotation.get("preference")
    if value is None:
        return None
    return float(value) if value else DRAW


def outputs(instructions: Sequence[str], answers: Sequence[str], generator: str) -> list[dict[str, str]]:
    """A model's answers in AlpacaEval's JSON, which its own command reads as ``--model_outputs``."""
    pairs = zip(instructions, answers, strict=True)
    return [{"instruction": asked, "output": said, "generator": generator} for asked, said in pairs]


def win_rate(preferences: Sequence[float | None]) -> float:
    """The share of comparisons that the model wins, a draw counting half; what is not annotated is left out."""
    known = [value for value in preferences if value is not None]
    if not known:
        raise ValueError("expected at least one annotated pair")
    return sum(value - 1 for value in known) / len(known)


def agreement(one: Sequence[float | None], other: Sequence[float | None]) -> Agreement:
    """How often two annotators prefer the same answer, where both prefer one."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    decided = [(a, b) for a, b in pairs if DRAW not in (a, b)]
    same = sum((a > DRAW) == (b > DRAW) for a, b in decided)
    return Agreement(same / len(decided) if decided else math.nan, len(decided), len(pairs) - len(decided))


def length_controlled_win_rate(
    preferences: Sequence[float | None], lengths: Sequence[int], reference_lengths: Sequence[int]
) -> float:
    """The win rate that the model would have if its answers were as long as the reference's. Lengths in characters."""
    rows = [
        (value - 1, own - other)
        for value, own, other in zip(preferences, lengths, reference_lengths, strict=True)
        if value is not None
    ]
    differences = [difference for _, difference in rows]
    mean = sum(differences) / len(differences)
    spread = math.sqrt(sum((value - mean) ** 2 for value in differences) / len(differences)) or 1.0
    features = [math.tanh(difference / spread) for difference in differences]
    return _logistic(_fit([won for won, _ in rows], features)[0])


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _fit(wins: Sequence[float], features: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope of a logistic regression, by Newton's method."""
    intercept = slope = 0.0
    for _ in range(50):
        said = [_logistic(intercept + slope * feature) for feature in features]
        weights = [value * (1 - value) for value in said]
        gradient = (
            sum(won - value for won, value in zip(wins, said, strict=True)) - RIDGE * intercept,
            sum((won - value) * x for won, value, x in zip(wins, said, features, strict=True)) - RIDGE * slope,
        )
        a = sum(weights) + RIDGE
        b = sum(weight * x for weight, x in zip(weights, features, strict=True))
        c = sum(weight * x * x for weight, x in zip(weights, features, strict=True)) + RIDGE
        determinant = a * c - b * b
        step = (
            (c * gradient[0] - b * gradient[1]) / determinant,
            (a * gradient[1] - b * gradient[0]) / determinant,
        )
        intercept, slope = intercept + step[0], slope + step[1]
        if max(map(abs, step)) < 1e-10:
            break
    return intercept, slope
