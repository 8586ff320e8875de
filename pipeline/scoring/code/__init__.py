"""Answers that are a Python function, judged by unit tests that are really run.

The code of an answer is its first fenced block that defines the function; where code begins before a fence, or without
one, it is the text from the first line that begins a definition or an import up to a fence. Of this, the longest run of
lines from the top that parses counts: an answer that was cut off, or goes on in prose, is judged by what it had said.
Each test is a pair of arguments and the value expected; values come back from the sandbox and are compared here.
"""

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Any

from pipeline.core.types import Score
from pipeline.scoring.code.sandbox import Program, run

_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(?P<code>.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)
_START = re.compile(r"^(?:def |import |from \w|@|async def |class )", re.MULTILINE)


def read(answer: str, function: str) -> str | None:
    """The code an answer gives; None where it does not define ``function``."""
    fences, start = list(_FENCE.finditer(answer)), _START.search(answer)
    if fences and not (start and start.start() < fences[0].start()):
        texts = [fence["code"] for fence in fences]
    else:
        texts = [answer[start.start() :].partition("```")[0]] if start else []
    return next((source for text in texts if (source := _longest(text, function))), None)


def _longest(text: str, function: str) -> str | None:
    """The longest run of lines from the top that is Python and defines ``function``."""
    lines = text.splitlines()
    while lines:
        source = "\n".join(lines).rstrip()
        if _defines(source, function):
            return source
        lines.pop()
    return None


def _defines(source: str, function: str) -> bool:
    """Whether a text is Python and defines ``function`` at its top level."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model may write "\d" or "x is 1" without our console hearing of it
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(part, ast.FunctionDef) and part.name == function for part in body)


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
        scores.append(Score(id=id, value=passed / len(pairs), correct=correct, parsed=source))
    return scores


def same(got: Any, expected: Any) -> bool:
    """Whether a value that came back is the value expected: same type (a bool is no number), floats to 1e-9."""
    if isinstance(expected, float) and isinstance(got, (int, float)) and not isinstance(got, bool):
        try:
            return abs(got - expected) <= 1e-9 * max(1.0, abs(expected))
        except OverflowError:  # 10 ** 400 is no float
            return False
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(same, got, expected))
    return type(got) is type(expected) and got == expected
