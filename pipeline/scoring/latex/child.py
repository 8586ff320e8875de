"""The script of a process that compares expressions of LaTeX by their value. Started by ``verifier``, never imported.

A line of JSON comes in, [given, expected], and ``true`` or ``false`` goes out: math-verify parses both with a grammar
of LaTeX. Numbers are then compared exactly (its own comparison rounds, so that 1/30! would be 1/31!), equations up to a
factor, and all else as math-verify does it. A comparison that fails is ``false``, one that takes too long ``null``;
one that cannot be interrupted is ended by the kernel, and this process with it.

All limits are of CPU time, so that the machine's load changes no verdict.
"""

import json
import logging
import resource
import signal
import sys
import time
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Float, MatrixBase, Rational, oo, simplify  # type: ignore[import-untyped]

SECONDS = int(sys.argv[1])
MEMORY = 4 << 30
DIGITS = 60  # that numbers are computed to
ALIKE = Rational(1, 10**40)  # how far apart equal numbers may be computed, as a share of the larger


def main() -> None:
    """Answer questions until there are no more."""
    logging.disable(logging.CRITICAL)
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGPROF, _too_late)
    _parsed("1")  # loads the grammar, which takes a while and belongs to no comparison
    for line in sys.stdin:
        given, expected = json.loads(line)
        _limit(resource.RLIMIT_CPU, int(time.process_time()) + 1 + 2 * SECONDS)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        verdict: bool | None = None
        try:
            verdict = same(_parsed(given), _parsed(expected))
        except TooLate:
            pass
        except Exception:  # whatever an answer does to a grammar or to algebra, it is not shown to be right
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(verdict), flush=True)


def _limit(what: int, most: int) -> None:
    """Set a limit of this process, as far as it may."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


class TooLate(BaseException):
    """A comparison has used its CPU time."""


def _too_late(*_: object) -> None:
    raise TooLate


def _parsed(text: str) -> Any:
    """An expression as sympy has it, its decimals as fractions. ValueError for none."""
    expressions = parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
    if not expressions or not isinstance(expressions[0], Basic | MatrixBase):
        raise ValueError(f"expected an expression, got {text}")
    fractions = {number: Rational(str(number)) for number in expressions[0].atoms(Float)}
    return expressions[0].xreplace(fractions) if fractions else expressions[0]


def same(given: Any, expected: Any) -> bool:
    """Whether two expressions of sympy have the same value."""
    if getattr(given, "is_number", False) and getattr(expected, "is_number", False):
        return _same_numbers(given.doit(), expected.doit())
    if isinstance(given, Eq) and isinstance(expected, Eq):
        ratio = simplify((given.lhs - given.rhs) / (expected.lhs - expected.rhs))
        return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero)
    return bool(
        verify(
            expected,
            given,
            float_rounding=DIGITS // 2,
            numeric_precision=DIGITS,
            allow_set_relation_comp=True,
            timeout_seconds=None,
        )
    )


def _same_numbers(given: Any, expected: Any) -> bool:
    if not (given.is_finite and expected.is_finite):  # what is divided by zero is nothing
        return given == expected and given in (oo, -oo)
    if given.is_Rational and expected.is_Rational:
        return bool(given == expected)
    apart = abs((given - expected).evalf(DIGITS))
    larger = max(abs(given.evalf(DIGITS)), abs(expected.evalf(DIGITS)))
    return bool(apart <= ALIKE * larger)


if __name__ == "__main__":
    main()
