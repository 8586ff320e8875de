"""One way of writing for expressions of LaTeX that are written in several: what does not change a meaning goes."""

import re
from collections.abc import Sequence

from pipeline.scoring.latex.meaning import WORD

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|hbox|mathrm|mathbf|mathit|rm|operatorname)\s*\{([^{}]*)\}")
_PLAIN_WORD = re.compile(
    rf"(?<![\\A-Za-z{WORD}])[A-Za-z]{{3,}}(?![A-Za-z])|(?<![\\A-Za-z{WORD}])(?:or|cm|km|mm|kg|am|pm|AM|PM)\b"
)
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log exp max min gcd lcm mod det lim sqrt frac".split()
)
_REWRITTEN: Sequence[tuple[re.Pattern[str], str]] = (
    (re.compile(r"\*\*|__|^\*+|\*+$|`"), ""),  # emphasis
    (re.compile(r"[\u2212\u2013]"), "-"),
    (re.compile(r"(?<!\\)\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"(?<!\\)\\!"), ""),
    (re.compile(r"\{,\}|(?<=\d)\\,(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\(?:left|right|[bB]igg?[lrm]?|displaystyle|limits)(?![a-zA-Z])\.?"), ""),
    (re.compile(r"\\\$|\$"), ""),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-z])|°"), ""),
    (re.compile(r"(?<!\\)\\%|%"), ""),
    (re.compile(r"(?<!\\)\\[,;: ]|\\q?quad(?![a-z])|~"), " "),
    (re.compile(r"\\(?:leq|le)(?![a-z])|≤"), r"\\le "),
    (re.compile(r"\\(?:geq|ge)(?![a-z])|≥"), r"\\ge "),
    (re.compile(r"\\(?:ne|neq)(?![a-z])|≠"), r"\\ne "),
    (re.compile(r"∞"), r"\\infty "),
    (re.compile(r"π"), r"\\pi "),
    (re.compile(r"√\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"\\lbrace(?![a-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-z])"), r"\\}"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\{[^{}]*\})\s*(\d)(?!\d)"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*(\w)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\d.,])0+(?=\d)"), ""),  # 007
    (re.compile(r"(?<!\d)\.(?=\d)"), "0."),
    (re.compile(r"(\d\.\d*?)0+(?!\d)"), r"\1"),  # 5.00
    (re.compile(r"(\d)\.(?!\d)"), r"\1"),
)
_MIXED = re.compile(r"(?<![\d.^_{}/])(\d{1,9})\s*(?:\\frac\{(\d{1,9})\}\{(\d{1,9})\}|(?<=\s)(\d{1,9})/(\d{1,9})(?!\d))")
_ONE_LETTER = re.compile(rf"\(\s*{WORD}?([A-Za-z])\s*\)")


def plain(expression: str) -> str:
    """An expression in one way of writing. Each of its words stands behind ``meaning.WORD``."""
    text = expression.strip()
    for pattern, instead in _REWRITTEN:
        text = pattern.sub(instead, text)
    text = _MIXED.sub(_one_fraction, text)
    if r"\begin" not in text:
        text = _TEXT.sub(lambda match: f" {_marked(match[1])} ", text)
        text = _PLAIN_WORD.sub(lambda match: match[0] if match[0] in _FUNCTIONS else WORD + match[0], text)
    text = re.sub(r"\s+", " ", text).strip().rstrip(".").strip()
    letter = _ONE_LETTER.fullmatch(text)
    return letter[1] if letter else text


def _marked(words: str) -> str:
    """The words of a text, marked as such."""
    return re.sub(r"(?<![^\W\d_])(?<![.'’-])[^\W\d_]+", lambda match: WORD + match[0], words)


def _one_fraction(match: re.Match[str]) -> str:
    """A mixed number as one fraction, if it is one."""
    whole, above, below = int(match[1]), int(match[2] or match[4]), int(match[3] or match[5])
    return rf"\frac{{{whole * below + above}}}{{{below}}}" if 0 < above < below else match[0]
