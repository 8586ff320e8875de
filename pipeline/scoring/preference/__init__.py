"""Which of two answers is better: win rates against a reference model, and what a judge's word is worth.

Everything here is arithmetic on preferences as AlpacaEval's annotations hold them: 1 for the reference's answer, 2 for
the model's, between them a draw (1.5; AlpacaEval v1 writes 0 for it). Judges are in ``judges``; a win rate is never
reported without how often its judge agrees with GPT-4's annotations of the same kind.

The length-controlled win rate follows AlpacaEval 2 (arXiv 2404.04475, Eq. 3): a logistic regression of the preference
on the model, on tanh of the standardised difference of lengths, and on the instruction's difficulty, read off at equal
lengths and averaged over instructions:

    p(model preferred) = logistic(θ_m + φ_m tanh((len_m − len_ref) / std) + ψ_m γ_i)

γ is shared by all models: it comes from a first fit of GPT-4's annotations of several models at once, with ψ = 1.

**Deviations**: γ is fitted to the annotated models at hand, not to the whole leaderboard. The leaderboard's program
also pulls φ towards that of two baselines told to be brief or verbose, whose annotations are not beside the models',
and chooses an L1 penalty by cross-validation; here a ridge keeps a separable fit finite, and φ is the data's own. So a
model that wins by length falls deeper here: of the five annotated models (``tasks.alpaca_eval``) that the leaderboard
has, four are within 5 points of it; llama-2-7b-chat, most of whose answers are long, is 9.5 below.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.types import Score

DRAW = 1.5
RIDGE = 1e-3
DIFFICULTY_RIDGE = 1.0  # of γ, which only a few models' annotations tell: a prior N(0, 1)


class Agreement(NamedTuple):
    """share: of pairs on which two annotators say the same, draws left out. n: such pairs. drawn: those left out."""

    share: float
    n: int
    drawn: int


def score(id: str, answer: str) -> Score:
    """No answer to an instruction is right or wrong: correct tells only whether anything was answered."""
    said = answered(answer)
    return Score(id=id, value=float(said), correct=said, parsed=answer.strip() or None, marked=said)


def answered(answer: str) -> bool:
    """Whether there is an answer to compare at all."""
    return bool(answer.strip())


def preference(annotation: Mapping[str, Any]) -> float | None:
    """What an annotation of AlpacaEval's prefers: 1 to 2; None where it says nothing (null, or no number).

    UserError where it says what is no preference.
    """
    value = annotation.get("preference")
    if value == 0 and not isinstance(value, bool):
        return DRAW
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 2:
        raise UserError(
            f"expected a preference from 1 to 2, 0 for a draw or null for none, got {value!r} for the instruction "
            f"'{str(annotation.get('instruction'))[:60]}'; correct the annotations"
        )
    return float(value)


def says(value: float | None) -> TypeGuard[float]:
    """Whether there is a preference: neither None nor NaN."""
    return value is not None and not math.isnan(value)


def outputs(instructions: Sequence[str], answers: Sequence[str], generator: str) -> list[dict[str, str]]:
    """A model's answers in AlpacaEval's JSON, which its own command reads as ``--model_outputs``."""
    pairs = zip(instructions, answers, strict=True)
    return [{"instruction": asked, "output": said, "generator": generator} for asked, said in pairs]


def win_rate(preferences: Sequence[float | None]) -> float:
    """The share of comparisons that the model wins, a draw counting half; what is not annotated is left out."""
    known = [value for value in preferences if says(value)]
    if not known:
        raise UserError("expected at least one annotated pair, got none; see what the judge answers")
    return sum(value - 1 for value in known) / len(known)


def agreeing(annotator: Sequence[float | None], other: Sequence[float | None]) -> list[bool]:
    """Whether two annotators prefer the same answer, for each pair of which both prefer an answer."""
    pairs = [(first, second) for first, second in zip(annotator, other, strict=True) if says(first) and says(second)]
    return [(first > DRAW) == (second > DRAW) for first, second in pairs if DRAW not in (first, second)]


def agreement(annotator: Sequence[float | None], other: Sequence[float | None]) -> Agreement:
    """How often two annotators prefer the same answer, of the pairs of which both prefer an answer."""
    same = agreeing(annotator, other)
    pairs = sum(says(first) and says(second) for first, second in zip(annotator, other, strict=True))
    return Agreement(sum(same) / len(same) if same else math.nan, len(same), pairs - len(same))


def length_controlled_win_rate(
    preferences: Sequence[float | None],
    lengths: Sequence[int],
    reference_lengths: Sequence[int],
    difficulty: Sequence[float] | None = None,
) -> float:
    """The win rate that the model would have if its answers were as long as the reference's.

    Lengths in characters. difficulty: γ of each instruction, as ``difficulties`` gives it; none without annotations.
    """
    known = [place for place, value in enumerate(preferences) if says(value)]
    if not known:
        raise UserError("expected at least one annotated pair, got none; see what the judge answers")
    wins = np.array([preferences[place] for place in known], float) - 1
    longer = _longer(np.array([lengths[place] - reference_lengths[place] for place in known], float))
    gamma = np.zeros(len(known)) if difficulty is None else np.array([difficulty[place] for place in known])
    design = np.stack([np.ones(len(known)), longer, gamma], axis=1)
    weights = _fit(wins, design, np.full(3, RIDGE))
    return float(_logistic(weights[0] + weights[2] * gamma).mean())


def difficulties(annotations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """γ of each instruction, from annotations of several models: the larger, the more of them win on it."""
    by_model = defaultdict(list)
    for row in annotations:
        if preference(row) is not None:
            by_model[row["generator_2"]].append(row)
    rows = [row for group in by_model.values() for row in group]
    places = {instruction: place for place, instruction in enumerate(dict.fromkeys(row["instruction"] for row in rows))}
    models = len(by_model)
    design = np.zeros((len(rows), 2 * models + len(places)))
    start = 0
    for model, group in enumerate(by_model.values()):
        own = slice(start, start + len(group))
        start += len(group)
        design[own, model] = 1
        design[own, models + model] = _longer(
            np.array([len(row["output_2"]) - len(row["output_1"]) for row in group], float)
        )
    design[np.arange(len(rows)), [2 * models + places[row["instruction"]] for row in rows]] = 1
    ridge = np.concatenate([np.full(2 * models, RIDGE), np.full(len(places), DIFFICULTY_RIDGE)])
    weights = _fit(np.array([preference(row) for row in rows], float) - 1, design, ridge)
    return dict(zip(places, weights[2 * models :].tolist(), strict=True))


def _longer(differences: np.ndarray) -> np.ndarray:
    """tanh of the differences in length, in units of their deviation."""
    return np.tanh(differences / (differences.std() or 1.0))


def _logistic(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))


def _fit(wins: np.ndarray, design: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """The weights of a logistic regression, by Newton's method. wins: (n,) in [0, 1]; design: (n, weights)."""
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        said = _logistic(design @ weights)
        gradient = design.T @ (wins - said) - ridge * weights
        curvature = (design.T * (said * (1 - said))) @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        weights += step
        if np.abs(step).max() < 1e-10:
            break
    return weights
