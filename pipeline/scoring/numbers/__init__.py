"""Answers that are a number.

Which number of an answer counts:
1. after its last mark (``pipeline.scoring.marks``) that has a number, in the same sentence or in the same box: the
   result of an equation ("Answer: 3 * 4 = 12" says 12), else the first number;
2. without such a mark, the last number ("37 + 85 = 122" says 122).

Where a task asks for no mark, a last number stands where it was asked for, too, if it concludes: with a unit at the
most behind it, it ends the answer, begins a line, or is what something is said to be ("= 122", "is 122").

Numbers are read as people and models write them: signs and currency signs (-$3, $-3), thousands (1,250 and 1{,}250 and
1\\,250 and 1'250), decimals, fractions (3/4, \\frac{3}{4}, ¾), mixed numbers (2 1/2), powers (1e5, 5 \\times 10^3),
full width digits. They are compared as exact fractions, so 12.50 is 12.5 and 0.3 is not 0.30000001.
"""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from pipeline.core.types import Score
from pipeline.scoring.marks import Said, answered, behind_marks

_CURRENCY = "[$€£¥¢₹₩₽₺₫₪₱₦₴฿₿]"
_THIN = "\u00a0"  # stands for all spaces that separate thousands, LaTeX's among them
_NUMBER = re.compile(
    rf"""
    (?P<sign>                         # only where it can be no subtraction, hyphen or range
      (?<![\w)%.])(?<![\d)%][ ]) [-+] [ ]? {_CURRENCY}? [ ]? | {_CURRENCY} [ ]? [-+]
    )?
    (?<![\d.]) (?<!\^) (?<!\^\{{)     # an exponent is no number of the answer
    (?:
      (?P<whole> \d{{1,3}} (?: [,'’{_THIN}] \d{{3}} )+ (?!\d) | \d{{1,2}} (?: ,\d{{2}} )+ ,\d{{3}} (?!\d) | \d+ )
      (?P<decimals> \.\d+ )?
    | (?P<only_decimals> \.\d+ )
    )
    (?: (?P<mixed> [ ]{{1,2}} \d{{1,6}} / \d{{1,6}} ) (?![\d/.]) | / (?P<divisor> \d+ ) (?![\d/]) )?
    (?: [eE] (?P<e> [-+]?\d+ ) (?!\w)
      | [ ]? (?: \\times | \\cdot | [×·x*] ) [ ]? 10 [ ]? (?: \^ | \*\* ) [ ]?
        \{{? (?P<ten> [-+]?\d+ ) \}}? (?!\d)
      | [ ]? (?: \^ | \*\* ) [ ]? \{{? (?P<power> \d+ ) \}}? (?!\d)
    )?
    """,
    re.VERBOSE,
)
_LONGEST = 1000  # characters; Python reads no whole numbers of more than 4300 digits
_LARGEST = 400  # of an exponent to ten

# What is written otherwise and means the same, first to last.
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SIGNS = str.maketrans({"\u2212": "-", "\ufe63": "-", "\u2013": "-", "\u2044": "/", "\u3000": " "})
_REWRITTEN: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"\{,\}|,\\[!,]"), ","),
    (re.compile(r"\\[,;:! ]|[\u2007\u2009\u202f]"), _THIN),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\(?:left|right|displaystyle|limits)\b"), ""),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s{0,4}\{([^{}]*)\}"), r" \1 "),
    (
        re.compile(r"\\[dtc]?frac\s{0,4}\{\s{0,4}(-?[\d.,]+)\s{0,4}\}\s{0,4}\{\s{0,4}([\d.,]+)\s{0,4}\}"),
        r"\\of \1/\2 ",
    ),
    (re.compile(r"\\[dtc]?frac\s{0,4}(\d)\s{0,4}(\d)"), r"\\of \1/\2 "),
    (re.compile(r"(?<=\d)\\of "), " "),  # two and a half
    (re.compile(r"\\of "), ""),
    (re.compile(r"^[ \t]{0,8}[-+*•][ \t]", re.MULTILINE), ""),  # an item of a list is no negative number
)


class Number(NamedTuple):
    """A number of a text, and where it stands there."""

    value: Fraction
    start: int
    end: int


class Reading(NamedTuple):
    """The number that an answer gives.

    behind_mark: whether it was read behind a mark. concludes: whether it stands where an answer without marks has it.
    """

    value: Fraction
    behind_mark: bool
    concludes: bool


def plain(text: str) -> str:
    """A text with its numbers written in one way."""
    text = re.sub(r"(?<=10)[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda power: "^" + power[0].translate(_SUPERSCRIPTS), text)
    text = "".join(_plain_letter(letter) for letter in text) if not text.isascii() else text
    for pattern, instead in _REWRITTEN:
        text = pattern.sub(instead, text)
    return text


def _plain_letter(letter: str) -> str:
    """A letter as it stands in ASCII, where it is a digit, a sign, or a fraction with a sign of its own."""
    if unicodedata.category(letter) == "No" and "\u2044" in (parts := unicodedata.normalize("NFKC", letter)):
        return f" {parts.replace(chr(0x2044), '/')}"
    if "\uff01" <= letter <= "\uff5e":  # full width
        return chr(ord(letter) - 0xFEE0)
    return letter.translate(_SIGNS)


def numbers(text: str) -> list[Number]:
    """All numbers of a text, in order. text: as ``plain`` gives it."""
    read, place = [], 0
    while match := _NUMBER.search(text, place):
        place = match.end()
        value, place = _value(match)
        if value is not None:
            read.append(Number(value, match.start(), place))
    return read


def _value(match: re.Match[str]) -> tuple[Fraction | None, int]:
    """The number that was matched, None for none that can be; and where it ends."""
    if len(match[0]) > _LONGEST:
        return None, match.end()
    whole = re.sub(r"\D", "", match["whole"] or "0")
    value = Fraction(whole + (match["decimals"] or match["only_decimals"] or ""))
    if match["mixed"]:
        above, below = map(int, match["mixed"].split("/"))
        if not 0 < above < below or match["decimals"]:  # two numbers
            return _signed(match, value), match.start("mixed")
        value += Fraction(above, below)
    if match["divisor"]:
        if int(match["divisor"]) == 0:
            return None, match.end()
        value /= int(match["divisor"])
    exponent, power = int(match["e"] or match["ten"] or 0), int(match["power"] or 1)
    unclear = match["power"] and (match["divisor"] or match["mixed"])  # of which part it is the power
    if unclear or abs(exponent) > _LARGEST or (power > 1 and power * len(match[0]) > _LONGEST):
        return None, match.end()
    value = value**power * Fraction(10) ** exponent
    return _signed(match, value), match.end()


def _signed(match: re.Match[str], value: Fraction) -> Fraction:
    return -value if "-" in (match["sign"] or "") else value


def read(answer: str) -> Fraction | None:
    """The number an answer gives; None where it gives none."""
    given = reading(answer)
    return None if given is None else given.value


def reading(answer: str) -> Reading | None:
    """The number an answer gives, and how it is said; None where it gives none."""
    text = answered(plain(answer))
    every = numbers(text)
    for said in behind_marks(text):
        inside = [number for number in every if said.start <= number.start < said.end]
        if inside:
            return Reading(_result(text, said, inside), behind_mark=True, concludes=True)
    return Reading(every[-1].value, behind_mark=False, concludes=_concludes(text, every[-1])) if every else None


_CLAUSE_END = re.compile(r"[;\n(]|,\s|[.!?](?:\s|$)|\b(?:because|since|so|as|which|or|and)\b")


def _result(text: str, said: Said, inside: Sequence[Number]) -> Fraction:
    """The number that is said behind a mark: what an equation comes to, else the first.

    An equation is one in the first clause, without words between its parts; behind its last sign stands one number.
    """
    ended = _CLAUSE_END.search(text, said.start, said.end)
    end = ended.start() if ended else said.end
    first, last = text.find("=", said.start, end), text.rfind("=", said.start, end)
    between = text[first:last]
    if first < 0 or re.search(r"[^\W\d_]{2}", between.replace("\\times", "").replace("\\cdot", "")):
        return inside[0].value
    results = [number for number in inside if last < number.start < end]
    if len(results) != 1 or re.search(r"[-+*/×÷^]", text[results[0].end : end].strip("* ")):
        return inside[0].value
    return results[0].value


_LINE_OR_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_WORD = re.compile(r"\w+")
_SAID_TO_BE = re.compile(r"(?:[=:≈]|\b(?:is|are|was|were|be|makes?|equals?|gives?|totals?|to))[^\w\n]{0,8}$")
_LONGEST_UNIT = 3  # words: "dollars in all"


def _concludes(text: str, number: Number) -> bool:
    """Whether the last number of a text stands where a short answer has it, as the module says."""
    sentence_end = _LINE_OR_SENTENCE_END.search(text, number.end)
    end = sentence_end.start() if sentence_end else len(text)
    if len(_WORD.findall(text, number.end, end)) > _LONGEST_UNIT:
        return False
    before = text[text.rfind("\n", 0, number.start) + 1 : number.start]
    ends_answer, begins_line = not _WORD.search(text, end), not _WORD.search(before)
    return ends_answer or begins_line or bool(_SAID_TO_BE.search(before))


def score(
    id: str, answer: str, expected: str, *, asks_for_mark: bool = False, tolerance: Fraction = Fraction(0)
) -> Score:
    """Correct if the answer gives the expected number, itself written as a number.

    asks_for_mark: whether the task asks for a mark, so that only a number behind one is where it was asked for.
    tolerance: how far the number may be from the expected one.
    """
    given = reading(answer)
    correct = given is not None and abs(given.value - Fraction(expected)) <= tolerance
    return Score(
        id=id,
        value=float(correct),
        correct=correct,
        parsed=None if given is None else str(given.value),
        marked=given is not None and (given.behind_mark or (given.concludes and not asks_for_mark)),
    )
