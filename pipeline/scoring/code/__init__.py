"""Answers that are a Python function, judged by unit tests that are really run.

``reading`` says which code of an answer counts; each test is a pair of arguments and the value expected; values come
back from the sandbox and are compared here.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.core.types import Score
from pipeline.scoring.code.reading import read
from pipeline.scoring.code.sandbox import Program, run

__all__ = ["read", "same", "score"]


def score(tests: Sequence[tuple[str, str, Sequence[Sequence[Any]]]], answers: Sequence[str]) -> list[Score]:
    """One score per answer. tests: id, name of the function, and (arguments, value expected) pairs."""
    sources = [read(answer, function) for (_, function, _), answer in zip(tests, answers, strict=True)]
    programs = [
        Program(source, function, [arguments for arguments, _ in pairs])
        for source, (_, function, pairs) in zip(sources, tests, strict=True)
        if source is not None
    ]
    outcomes = iter(run(programs))
    scores = []
    for source, (id, _, pairs) in zip(sources, tests, strict=True):
        values = next(outcomes).values if source is not None else []
        passed = sum(same(got, expected) for got, (_, expected) in zip(values, pairs, strict=False))
        correct = passed == len(pairs)
        scores.append(
            Score(id=id, value=passed / len(pairs), correct=correct, parsed=source, marked=source is not None)
        )
    return scores


def same(got: Any, expected: Any) -> bool:
    """Whether a value that came back is the value expected: same type (a bool is no number), floats to 1e-9."""
    try:
        if isinstance(expected, float) and isinstance(got, int | float) and not isinstance(got, bool):
            return abs(got - expected) <= 1e-9 * max(1.0, abs(expected))
        if isinstance(expected, list):
            return isinstance(got, list) and len(got) == len(expected) and all(map(same, got, expected))
        return type(got) is type(expected) and bool(got == expected)
    except (OverflowError, RecursionError):  # 10 ** 400 is no float; lists may be deep
        return False
