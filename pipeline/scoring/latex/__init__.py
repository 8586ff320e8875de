"""Answers that are a mathematical expression in LaTeX, compared by what it means.

Which expression of an answer counts: what stands in the last ``\\boxed{}``; without one, what the last mark says
("answer is", a tag: ``pipeline.scoring.marks``), up to the end of the sentence, of this the first formula if there is
one; without that, the last formula, or the last number, which stands where it was asked for only if the answer says
nothing else.

Two expressions are the same if they are written alike, after what does not change a meaning has gone (spaces, "\\left",
"dfrac" for "frac", a dollar, a degree, "x =" before a value), or if their parts have the same values (``meaning``).

**Deviations** from Minerva's comparison (arXiv 2206.14858), which lm-evaluation-harness uses for MATH: equal in value
is equal, \\frac{1}{2} and 0.5 alike, but not what is only rounded to it; words count, but for a unit that is left out.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.core.types import Score
from pipeline.scoring.latex import meaning
from pipeline.scoring.latex.writing import plain
from pipeline.scoring.marks import answered, behind_marks, end_of_braces

_BOX = re.compile(r"\\f?box(?:ed)?\s{0,8}")
_DELIMITER = re.compile(r"(?<!\\)\$\$|(?<!\\)\$|\\\(|\\\)|\\\[|\\\]")
_CLOSED_BY = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_LINE_END = re.compile(r"\n|\.\s")
_NUMBER = re.compile(r"-?\\[dtc]?frac\{-?\d+\}\{\d+\}|-?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_UNREADABLE = re.compile("[\0\x02\ud800-\udfff]")


class Reading(NamedTuple):
    """The expression that an answer gives, and whether it stands where it was asked for."""

    expression: str
    marked: bool


def boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{...}`` (or ``\\boxed 3``, or ``\\fbox``) of a text."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    place = boxes[-1].end()
    if text[place : place + 1] != "{":
        words = text[place : place + 200].split()
        return words[0].partition("$")[0] or None if words else None
    end = end_of_braces(text, place + 1)
    return text[place + 1 : end].strip() or None if end < len(text) else None


def read(answer: str) -> str | None:
    """The expression an answer gives; None where it gives none."""
    given = reading(answer)
    return None if given is None else given.expression


def reading(answer: str) -> Reading | None:
    """The expression an answer gives, and whether it stands where it was asked for; None where it gives none."""
    text = _UNREADABLE.sub("\ufffd", answered(answer.replace("\r\n", "\n").replace("\r", "\n")))
    if (inner := boxed(text)) is not None:
        return Reading(inner, marked=True)
    for said in behind_marks(text):
        if said.cut:
            continue
        inside = text[said.start : said.end]
        if not said.enclosed:
            inside = _LINE_END.split(inside, maxsplit=1)[0]
        if expression := next(_formulas(inside), inside).strip(" .*_`"):
            return Reading(expression, marked=True)
    formulas = list(_formulas(text))
    last = formulas[-1] if formulas else next(iter(_NUMBER.findall(text)[-1:]), None)
    if last is None:
        return None
    head, _, tail = text.rpartition(last)
    return Reading(last, marked=not re.search(r"\w", head + tail))


def _formulas(text: str) -> Iterator[str]:
    """What stands between dollars, or their equals, in order."""
    delimiters = list(_DELIMITER.finditer(text))
    last = {delimiter[0]: place for place, delimiter in enumerate(delimiters)}
    opened: re.Match[str] | None = None
    for place, delimiter in enumerate(delimiters):
        if opened is not None and delimiter[0] == _CLOSED_BY[opened[0]]:
            if inside := text[opened.end() : delimiter.start()].strip():
                yield inside
            opened = None
        elif opened is None and last.get(_CLOSED_BY.get(delimiter[0], ""), -1) > place:
            opened = delimiter


def same(given: str, expected: str) -> bool:
    """Whether two expressions mean the same."""
    if given == expected:
        return True
    if len(given) > 10 * len(expected) + 200:  # no answer, and a grammar's worst case
        return False
    return meaning.same(plain(given), plain(expected))


def score(id: str, answer: str, expected: str) -> Score:
    """Correct if the answer gives the expected expression."""
    given = reading(answer)
    correct = given is not None and same(given.expression, expected)
    return Score(
        id=id,
        value=float(correct),
        correct=correct,
        parsed=None if given is None else given.expression,
        marked=given is not None and given.marked,
    )
