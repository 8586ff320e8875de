"""Whether two expressions of LaTeX mean the same, words and lists and brackets first, then values.

An expression is a list of parts ("3 and 5", "x = 1, 2", "\\pm 17"), in any order; a part is a value, perhaps with a
unit, or words with values between them ("June 20"). What has brackets is compared place by place. Values that are
written as numbers are compared as fractions, all others by algebra (``verifier``).

Words are never dropped, but for a unit that one side leaves out ("8 ways" is 8). So 35 is not "3 and 5", June is not
July, and a.m. is not p.m.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from pipeline.scoring.latex import verifier

_NUMBER = re.compile(r"([-+]?)(?:(\d+(?:\.\d*)?|\.\d+)|\\frac\{(\d{1,200})\}\{(\d{1,200})\}|(\d{1,200})/(\d{1,200}))")
_LONGEST = 1000  # characters of a number
_NAMED = re.compile(
    r"(?P<name>[A-Za-z](?:_\{?\w\}?)?|[A-Za-z]\([a-z]\)|\\(?:theta|alpha|beta|lambda))(?:=|\\in(?![a-z]))(?!=)"
)
WORD = "\x02"  # stands before each word
_WORDS = re.compile(rf"{WORD}[^\W\d_]+(?:[.'’-][^\W\d_]+)*\.?")
_POWER = re.compile(r"\^\{?\d\}?")
# Words behind a number that are no unit: to leave them out says another thing.
_NO_UNITS = frozenset("am pm hundred thousand million billion trillion dozen".split())
_OPENING, _CLOSING = "([{", ")]}"
_UNION = r"\cup"
_LARGEST_LIST = 12  # parts that are compared in any order


def same(given: str, expected: str) -> bool:
    """Whether two expressions mean the same. Both as ``writing.plain`` gives them."""
    if _readings(given) & _readings(expected):
        return True
    given_name, given = _named(given)
    expected_name, expected = _named(expected)
    if given_name and expected_name and given_name != expected_name:
        return False
    given_parts, expected_parts = _parts(given), _parts(expected)
    for few, many in ((given_parts, expected_parts), (expected_parts, given_parts)):
        if len(few) == 1 and len(many) > 1 and few[0][:1] == "(" and few[0][-1:] == ")":  # (1, 2) for 1, 2
            inner = _parts(few[0][1:-1])
            return len(inner) == len(many) and all(map(_same_part, inner, many))
    if len(given_parts) != len(expected_parts) or len(given_parts) > _LARGEST_LIST:
        return False
    return _matched(given_parts, expected_parts)


def _matched(given: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether each part has one on the other side that means the same, in any order."""
    left = list(expected)
    for part in given:
        match = next((other for other in left if _same_part(part, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _readings(text: str) -> set[str]:
    """The text without spaces; with the commas of thousands, and without."""
    spaced = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return {re.sub(rf"[\s{WORD}]", "", reading) for reading in (text, spaced)} - {""}


def _named(text: str) -> tuple[str, str]:
    """The name that a value is given, if there is one, and the rest: "x = 5", "f(x) = x", "x \\in (1, 2)"."""
    squeezed = text.replace(" ", "") if WORD not in text else text
    match = _NAMED.match(squeezed)
    return (match["name"], squeezed[match.end() :]) if match and "=" not in squeezed[match.end() :] else ("", text)


def _parts(text: str) -> list[str]:
    """The parts of a list; what has a plus or minus is two. Thousands lose their commas first."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(rf",?\s*{WORD}(?:and|or)(?![^\W\d_])\s*", ",", text)
    if text.startswith(r"\{") and text.endswith(r"\}") and text.count(r"\{") == 1:
        text = text[2:-2]
    parts = [part for part in _split(text, ",") if part]
    if r"\pm" in text:
        signs = (("+", "-"), ("-", "+"))
        return [
            part.replace(r"\pm", plus).replace(r"\mp", minus).lstrip("+ ") for part in parts for plus, minus in signs
        ]
    return parts


def _split(text: str, separator: str) -> list[str]:
    """The text cut where the separator stands outside all brackets and environments."""
    pieces, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if text.startswith((r"\begin", r"\end"), place):
            depth += 1 if text.startswith(r"\begin", place) else -1
        elif text[place] in _OPENING:
            depth += 1
        elif text[place] in _CLOSING:
            depth -= 1
        elif depth == 0 and text.startswith(separator, place):
            pieces.append(text[start:place].strip())
            start = place + len(separator)
        place += 1
    return [*pieces, text[start:].strip()]


# ---- one part ------------------------------------------------------------------------------------------------------


def _same_part(given: str, expected: str) -> bool:
    if WORD in given or WORD in expected:
        return _same_words(given, expected)
    return _same_value(given, expected)


def _same_words(given: str, expected: str) -> bool:
    """Whether parts with words mean the same: the same words with the same values between, or values with units."""
    measured, other_measured = _with_unit(given), _with_unit(expected)
    if measured and other_measured:
        (value, unit), (other_value, other_unit) = measured, other_measured
        fitting = (unit <= other_unit or other_unit <= unit) and not (unit ^ other_unit) & _NO_UNITS
        if value and other_value and fitting:
            return _same_value(value, other_value)
    values, other_values = _WORDS.split(given), _WORDS.split(expected)
    if _words(given) != _words(expected) or len(values) != len(other_values):
        return False
    between = [(value.strip(" ,"), other.strip(" ,")) for value, other in zip(values, other_values, strict=True)]
    return all(value == other or (value != "" != other and _same_value(value, other)) for value, other in between)


def _words(text: str) -> list[str]:
    """The words of a text, without dots and capitals."""
    return [re.sub(r"[^\w]", "", word[0]).casefold() for word in _WORDS.finditer(text)]


def _with_unit(text: str) -> tuple[str, frozenset[str]] | None:
    """The value of a part and the words of its unit: those behind it, and their powers. None for words elsewhere."""
    first = text.find(WORD)
    value, unit = (text, "") if first < 0 else (text[:first], text[first:])
    if _POWER.sub("", _WORDS.sub("", unit)).strip(" /.,-"):
        return None
    words = {word.removesuffix("s") if len(word) > 2 else word for word in _words(unit)}
    return value.strip(" -"), frozenset(words)


def _same_value(given: str, expected: str) -> bool:
    """Whether two values are the same: by their brackets, as numbers, else by algebra."""
    if _readings(given) & _readings(expected):
        return True
    number, other_number = _number(given), _number(expected)
    if number is not None and other_number is not None:
        return number == other_number
    if ":" in given or ":" in expected:  # times and ratios are what they say
        return False
    if _UNION in given or _UNION in expected:
        sets, others = _split(given, _UNION), _split(expected, _UNION)
        return len(sets) == len(others) and _matched(sets, others)
    if (inside := _inside(given)) and (other_inside := _inside(expected)):
        (brackets, places), (other_brackets, other_places) = inside, other_inside
        interval = len(places) == 2  # its brackets say whether its ends belong to it
        fitting = len(places) == len(other_places) and (brackets == other_brackets or not interval)
        return fitting and all(map(_same_part, places, other_places))
    return verifier.same(given, expected)


def _inside(text: str) -> tuple[str, list[str]] | None:
    """The brackets of a point or an interval, and its places; None for anything else."""
    if text[:1] not in ("(", "[") or text[-1:] not in (")", "]"):
        return None
    places = _split(text[1:-1], ",")
    whole = len(places) > 1 and all(places) and _balanced(text[1:-1])
    return (text[0] + text[-1], places) if whole else None


def _balanced(text: str) -> bool:
    """Whether no bracket closes that was not opened here."""
    depth = 0
    for letter in text:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if depth < 0:
            return False
    return depth == 0


def _number(text: str) -> Fraction | None:
    """A value that is written as a number; None for any other."""
    match = _NUMBER.fullmatch(text.replace(" ", "")) if len(text) <= _LONGEST else None
    if match is None:
        return None
    above, below = (match[3] or match[5], match[4] or match[6]) if match[2] is None else (match[2], "1")
    if int(below) == 0:
        return None
    value = Fraction(above) / int(below)
    return -value if match[1] == "-" else value
