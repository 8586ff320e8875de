"""Answers that are a number.

Which number of an answer counts:
1. after the last "answer is", "answer:", "####" or "\\boxed{", the first number that follows;
2. without such a mark, the last number ("37 + 85 = 122" says 122).

Signs, thousands separators, currency signs, units, decimals and simple fractions are understood; numbers are
compared as exact fractions, so 12.50 is 12.5 and 0.3 is not 0.30000001.
"""

import re
from fractions import Fraction

from pipeline.core.types import Score

# A minus belongs to the number only where it cannot be a subtraction or a hyphen: not after a digit, a letter, ")".
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)])[-+\u2212]\s?[$€£]?|[$€£](?P<inner>[-\u2212]))?(?<![\d.])"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<decimals>\.\d+)?(?:/(?P<divisor>\d+)(?![\d/]))?"
)
_LONGEST = 1000  # characters; Python reads no whole numbers of more than 4300 digits
_MARK = re.compile(r"answer(?:\s+is|\s*:|\s*=)|####|\\boxed\{", re.IGNORECASE)


def numbers(text: str) -> list[Fraction]:
    """All numbers of a text, in order."""
    found = []
    for match in _NUMBER.finditer(text):
        whole, decimals, divisor = match["whole"], match["decimals"], match["divisor"]
        if (whole is None and decimals is None) or len(match[0]) > _LONGEST:
            continue
        value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
        if divisor is not None:
            if int(divisor) == 0:
                continue
            value /= int(divisor)
        sign = match["sign"] or ""
        found.append(-value if "-" in sign or "\u2212" in sign else value)
    return found


def read(answer: str) -> Fraction | None:
    """The number an answer gives; None where it gives none."""
    marks = list(_MARK.finditer(answer))
    after = numbers(answer[marks[-1].end() :]) if marks else []
    if after:
        return after[0]
    found = numbers(answer)
    return found[-1] if found else None


def score(id: str, answer: str, expected: str) -> Score:
    """Correct if the answer gives the expected number, itself written as a number."""
    given = read(answer)
    correct = given is not None and given == Fraction(expected)
    return Score(id=id, value=float(correct), correct=correct, parsed=None if given is None else str(given))
