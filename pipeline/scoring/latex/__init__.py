"""Answers that are a mathematical expression in LaTeX, compared by what it means.

Which expression of an answer counts: what stands in the last ``\\boxed{}``; without one, what follows the last "answer
is" or "answer:", up to the end of the sentence; without that, the last formula between dollars, or the last number.

Two expressions are the same if their texts are, after what does not change a meaning has gone (spaces, units, "\\left",
"dfrac" for "frac", a dollar, a degree, "x =" before a value), or if math-verify, which parses both with a grammar of
LaTeX and compares them in sympy, says so.

**Deviations** from Minerva's comparison (arXiv 2206.14858), which lm-evaluation-harness uses for MATH: equal in value
is equal, \\frac{1}{2} and 0.5 alike.
"""

import logging
import re

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

from pipeline.core.types import Score

SECONDS = 3  # sympy may take for ever over a tower of powers
_MARK = re.compile(r"answer(?:\s+is|\s*:)\s*:?", re.IGNORECASE)
_SENTENCE = re.compile(r"(?s)\s*(.+?)(?:\.\s|\.?\n|\.?\s*\Z)")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_SPACE = re.compile(r"\\[,;:! ]|\\quad|\\qquad|~|\s+")
_DROPPED = re.compile(r"\\left|\\right|\\displaystyle|\\\$|\$|\^\{?\\circ\}?|\\degree|\\%|%")
_WORDS = re.compile(r"\\(?:text|mbox|mathrm|textbf)\{([^{}]*)\}")

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)


def boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}`` (or ``\\boxed 3``, or ``\\fbox``) of a text."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    opening = re.compile(r"\\f?box(?:ed)?\s*").match(text, start)
    assert opening  # it is what was found
    place = opening.end()
    if text[place : place + 1] != "{":
        words = text[place:].split()
        return words[0].partition("$")[0] or None if words else None
    depth = 0
    for end in range(place, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[place + 1 : end].strip() or None
    return None


def read(answer: str) -> str | None:
    """The expression an answer gives; None where it gives none."""
    if (inner := boxed(answer)) is not None:
        return inner
    marks = list(_MARK.finditer(answer))
    if marks and (sentence := _SENTENCE.match(answer, marks[-1].end())):
        said = sentence[1]
        formula = _FORMULA.search(said)
        return (next(part for part in formula.groups() if part) if formula else said).strip() or None
    if formulas := _FORMULA.findall(answer):
        return next(part for part in formulas[-1] if part).strip() or None
    found = _NUMBER.findall(answer)
    return found[-1] if found else None


def bare(expression: str) -> str:
    """An expression without what does not change its meaning."""
    text = expression.replace("dfrac", "frac").replace("tfrac", "frac").replace("\\!", "")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    words = _WORDS.sub(r"\1", text)  # \text{even}: the answer; 5\text{ cm}: a unit
    unit = _WORDS.sub("", text)
    text = unit if unit.strip() and words != text else words
    text = re.sub(r"\\frac(\d)(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    text = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", text)
    text = _SPACE.sub("", _DROPPED.sub("", text))
    text = re.sub(r"(?<!\d)\.(?=\d)", "0.", text).rstrip(".")
    return re.sub(r"^[a-zA-Z]=(?!=)", "", text)


def same(given: str, expected: str) -> bool:
    """Whether two expressions mean the same."""
    if given == expected or bare(given) == bare(expected):
        return True
    if len(given) > 10 * len(expected) + 200:  # no answer, and a grammar's worst case
        return False
    try:
        config = [LatexExtractionConfig()]
        one, other = (
            parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=SECONDS)
            for text in (expected, given)
        )
        return bool(one and other and verify(one, other, timeout_seconds=SECONDS))
    except (TimeoutException, RecursionError, ValueError, TypeError, ArithmeticError, NotImplementedError):
        return False


def score(id: str, answer: str, expected: str) -> Score:
    """Correct if the answer gives the expected expression."""
    given = read(answer)
    correct = given is not None and same(given, expected)
    return Score(id=id, value=float(correct), correct=correct, parsed=given)
