"""Answers that are a Python function, judged by what a reference solution returns for the same arguments.

EvalPlus (arXiv 2305.01210) tests HumanEval and MBPP so: base tests are the benchmark's own, plus tests some eighty
times as many. Arguments and the values expected are stored as ``values.plain`` makes them; the program gets the
arguments alone, and what it returns is compared here, by EvalPlus's rules:

1. A value counts that equals the one expected (1 is 1.0, True is 1, a list is no tuple).
2. Where the reference gives floats, or the task states a tolerance, also one of the same type that is as close as
   that: |got − expected| ≤ atol + 1e-7 |expected|, atol at least 1e-6.
3. Some tasks have several right answers; their ``oracle`` says what counts.

**Deviations** from EvalPlus: a call's time limit is of CPU time and the same for all, and a program may sleep for three
seconds; only the standard library can be imported; what is no plain data (a generator, a match object), or has more
than a million items, counts as a raised call (which leaves out a few tests of MBPP+, of all combinations); a value
of more than 64 kB counts only if it is exactly the one expected. An answer's own assertions at its top level end
nothing when they fail (EvalPlus cuts them off); what else stands there runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.types import Score
from pipeline.scoring.code import read
from pipeline.scoring.code.sandbox import LIMITS, RAISED, Program, run
from pipeline.scoring.code.values import native, plain

PATIENCE = 4
# Plus tests are many, and some references are slow.
MANY = {
    **LIMITS,
    "cpu_seconds": 100,
    "wall_seconds": 300,
    "memory_bytes": 1 << 30,
    "output_bytes": 1 << 26,
}


def score(tests: Sequence[Mapping[str, Any]], answers: Sequence[str], ids: Sequence[str]) -> list[Score]:
    """One score per answer: correct if all base tests pass; ``also["plus"]`` if the plus tests, if any, do, too.

    tests: function; prelude (code that the prompt gives: imports and helpers); base and plus, the arguments of each
    call; expected, the reference's values for base and then plus; atol; oracle; seconds, of CPU time, for a call.
    """
    sources = [read(answer, test["function"]) for answer, test in zip(answers, tests, strict=True)]
    returned = iter(
        _returned(
            [
                (source, test, [*test["base"], *test["plus"]])
                for source, test in zip(sources, tests, strict=True)
                if source is not None
            ]
        )
    )
    scores = []
    for id, source, test in zip(ids, sources, tests, strict=True):
        values = next(returned) if source is not None else []
        passed = [
            got is not RAISED and agrees(got, native(expected), native(arguments), test)
            for got, expected, arguments in zip(values, test["expected"], [*test["base"], *test["plus"]], strict=False)
        ]
        count = len(test["base"])
        base = len(passed) >= count and all(passed[:count])
        plus = base and len(passed) == len(test["expected"]) and all(passed)
        value = sum(passed[:count]) / count
        scores.append(
            Score(
                id=id,
                value=value,
                correct=base,
                parsed=source,
                marked=source is not None,
                also={"plus": float(plus)},
            )
        )
    return scores


def with_references(references: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Tests with the values that their reference solutions return: (source, test without ``expected``) pairs.

    A reference may take ``PATIENCE`` times as long as an answer, so that the machine's load changes nothing. A plus
    test that the reference itself does not answer is left out; UserError where that is a base test.
    """
    programs = [
        (source, {**test, "prelude": "", "seconds": PATIENCE * test["seconds"]}, [*test["base"], *test["plus"]])
        for source, test in references
    ]
    whole: list[dict[str, Any]] = []
    for (_, test), (_, _, calls), values in zip(references, programs, _returned(programs), strict=True):
        count = len(test["base"])
        kept = [place for place, value in enumerate(values) if value is not RAISED]
        if kept[:count] != list(range(count)):
            answered = sum(place < count for place in kept)
            raise UserError(
                f"expected the reference '{test['function']}' to answer its {count} base tests in the sandbox, but it "
                f"answered {answered}; run it again on a machine that does less"
            )
        plus = [calls[place] for place in kept[count:]]
        whole.append({**test, "plus": plus, "expected": [plain(values[place]) for place in kept]})
    return whole


def _returned(programs: Sequence[tuple[str, Mapping[str, Any], Sequence[Any]]]) -> list[Sequence[Any]]:
    """The values of the calls of each program: (source, test, arguments of each call) triples."""
    outcomes = run(
        [
            Program(
                source,
                test["function"],
                [native(arguments) for arguments in calls],
                {**MANY, "call_seconds": test["seconds"]},
                before=test["prelude"],
                after=_WHETHER.format(function=test["function"]) if test["oracle"] == "whether" else "",
            )
            for source, test, calls in programs
        ]
    )
    return [outcome.values for outcome in outcomes]


# The oracle "whether": a match object is no plain data, and what counts is whether there is one.
_WHETHER = """
_answer = {function}
def {function}(*arguments):
    value = _answer(*arguments)
    return value if isinstance(value, bool) else value is not None
"""


def agrees(got: Any, expected: Any, arguments: Sequence[Any], test: Mapping[str, Any]) -> bool:
    """Whether a value counts as the one expected. Hostile values, as 10 ** 400 for a float, are no errors of ours."""
    try:
        oracle = ORACLES.get(test["oracle"])
        if oracle is not None:
            verdict = oracle(got, expected, arguments, test["atol"])
            if verdict is not None:
                return verdict
        if bool(got == expected):
            return True
        atol = test["atol"] or (1e-6 if _floats(expected) else 0.0)
        return bool(atol) and type(got) is type(expected) and _close(got, expected, atol)
    except Exception:  # whatever a program's value does to a comparison, it is not the one expected
        return False


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(got: Any, expected: Any, atol: float) -> bool:
    if isinstance(expected, list | tuple):
        same_form = isinstance(got, list | tuple) and len(got) == len(expected)
        return same_form and all(_close(*pair, atol) for pair in zip(got, expected, strict=True))
    return got == expected or abs(got - expected) <= atol + 1e-7 * abs(expected)


def _root(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool:
    """Any root of the polynomial with these coefficients, constant first."""
    return abs(sum(factor * math.pow(got, power) for power, factor in enumerate(arguments[0]))) <= atol


def _pyramid(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool | None:
    """The height of the square pyramid may be meant from its base, not along its side."""
    base, height = arguments
    return True if abs(got - round(base**2 + 2 * base * math.hypot(base / 2, height))) <= atol else None


def _digits(got: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool | None:
    """The distance of two numbers' digits, the shorter one padded with zeros."""
    first, second = map(str, arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return True if got == sum(abs(int(a) - int(b)) for a, b in pairs) else None


# Where a task admits more than the reference's value. True or False decides; None leaves it to the comparison.
ORACLES: dict[str, Callable[[Any, Any, Sequence[Any], float], bool | None]] = {
    "set": lambda got, expected, arguments, atol: set(got) == set(expected),
    "root": _root,
    "pyramid": _pyramid,
    "digits": _digits,
    "zero": lambda got, expected, arguments, atol: True if got == 0 else None,
    "anything": lambda got, expected, arguments, atol: True,
}
