"""Answers that name one of several choices, by its label (A, B, ...) or by its text.

Which mention counts:
1. after the last mark that names a choice ("answer is", a box, a tag: ``pipeline.scoring.marks``), the first choice
   that is named there;
2. without one, the last choice of which it is said that it is right ("Option B is correct");
3. without that, a letter that begins the answer as a label ("B) ...", "C - ...") decides if its line has no other;
4. without that, the first sentence that names a choice decides, and must name one choice only. A sentence
   that names several ("Ann is older than Bob") gives no answer, nor does a list of all choices: neither the first
   nor the last mention is taken on trust.

A choice stands where it was asked for in the ways 1 to 3, and in way 4 if the sentence begins or ends the answer.

A choice named by its text is found whatever its case, whole words only, the longest text first ("red car" is not
"red"). A label counts in capitals and where it stands as a label: "(B)", "[B]", "B)", "B." or alone on its line, behind
a word like "option", and after a mark; the "A" of "A dog" is none. With a bracket, "b)" is B, too. What is denied ("not
A", "A is wrong") is not named.
"""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import NamedTuple

from pipeline.core.types import PLAIN, Example, Score
from pipeline.scoring.marks import answered, behind_marks

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|\n+")
# Markup that says nothing: what it holds stands free. Boxes and tags stay, for they are marks.
_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s{0,4}\{([^{}]*)\}")
_MATHS = re.compile(r"\\[()\[\]]|\$")
_CHOOSING = r"option|choice|letter|choose|chose|pick|select|go for|going for|go with|going with"
_DENIED = re.compile(r"\b(?:not|nor|isn't|neither)\s+(?:the\s+)?(?:option\s+|choice\s+)?[(\[*\"']{0,3}$", re.IGNORECASE)
_VERB = r"[)\].,:*\"']{0,3}\s+(?:is|was|would be|must be|seems)\s+"
_RIGHT = re.compile(_VERB + r"(?:the\s+)?(?:most\s+)?(?:correct|right(?! of)|best|true|accurate)\b", re.IGNORECASE)
_WRONG = re.compile(_VERB + r"(?:not|never|wrong|incorrect|false)\b|[)\].,:*\"']{0,3}\s+isn't\b", re.IGNORECASE)
_SUPPOSED = re.compile(r"\b(?:if|whether|why)\s+(?:option\s+|choice\s+)?[(\[*\"']{0,3}$", re.IGNORECASE)
_FIRST_LABEL = re.compile(r"[\s(\[*\"']{0,8}([A-Z])(?:[).:*\]\"']|\s{1,4}[-–—]\s)")
_FIRST_SMALL = re.compile(r"[\s(\[*\"']{0,8}([a-z])[)\]]")
_SMALL = re.compile(r"(?<!\w)([a-z])[)\]]")
_NEAR = 40  # characters before a mention in which it may be denied


class Reading(NamedTuple):
    """The choice that an answer names: its label, and whether it stands where it was asked for."""

    label: str
    marked: bool


class _Mention(NamedTuple):
    """A choice that a text names: its label, and where."""

    label: str
    start: int
    end: int


def mentions(text: str, choices: Mapping[str, str]) -> list[str]:
    """The labels of the choices named in a text, in order. ``choices``: label to text."""
    return [mention.label for mention in _mentions(text, choices)]


def _mentions(text: str, choices: Mapping[str, str], *, loose: bool = False) -> list[_Mention]:
    """The choices named in a text, in order, without those that it denies.

    loose: a label counts wherever it stands as a word, but for an "A" before another word.
    """
    by_text = {choice.casefold(): label for label, choice in choices.items() if choice}
    longest_first = sorted(by_text, key=len, reverse=True)
    words = "|".join(re.escape(choice) for choice in longest_first) or r"(?!)"
    labels = "|".join(re.escape(label) for label in choices) or r"(?!)"
    standing = r"(?![\w'])(?<!\bA(?=\s\w))" if loose else r"(?=[).:,*\]}\"']|\s*$)"
    pattern = re.compile(
        rf"(?<!\w)(?i:(?P<text>{words}))(?!\w)"
        rf"|\b(?i:{_CHOOSING})\s{{1,4}}[(\[*\"']{{0,3}}(?P<chosen>{labels})(?!\w)"
        rf"|(?:(?<=[(*\[{{\"'])|(?<!\S))(?P<label>{labels}){standing}"
    )
    named = []
    for match in pattern.finditer(text):
        label = match["label"] or match["chosen"] or by_text[match["text"].casefold()]
        start = match.start("chosen") if match["chosen"] else match.start()
        denied = _DENIED.search(text[max(0, match.start() - _NEAR) : start]) or _WRONG.match(text, match.end())
        if not denied:
            named.append(_Mention(label, start, match.end()))
    return named


def read(answer: str, choices: Mapping[str, str]) -> str | None:
    """The label of the choice an answer names; None where it names none, or several."""
    given = reading(answer, choices)
    return None if given is None else given.label


def reading(answer: str, choices: Mapping[str, str]) -> Reading | None:
    """The choice an answer names, and how it does so; None where it names none, or several.

    An answer that is a choice's text, to the letter, names that choice, whatever words it is made of.
    """
    whole = answer.strip().casefold()
    if exact := [label for label in choices if _text(label, choices).strip().casefold() == whole]:
        return Reading(exact[0], marked=True)
    text = _MATHS.sub("", _WORDS.sub(r"\1", answered(answer)))
    label = _behind_mark(text, choices) or _called_right(text, choices) or _first_label(text, choices)
    return Reading(label, marked=True) if label else _alone(text, choices)


def _behind_mark(text: str, choices: Mapping[str, str]) -> str | None:
    """The first choice named behind the last mark that names one."""
    for said in behind_marks(text):
        inside, after = text[said.start : said.end], text[said.start : said.end if said.enclosed else len(text)]
        named = _mentions(inside, choices, loose=True)
        word = re.match(r"\W*(\w+)", inside)
        by_text = word and any(mention.start == word.start(1) and mention.end > word.end(1) for mention in named)
        if word and word[1] in choices and not by_text and not _DENIED.search(inside[: word.start(1)]):
            return word[1]
        if word and not named and re.match(r"[)\].:,*]|\s*$", inside[word.end(1) :]) and word[1].upper() in choices:
            return word[1].upper()  # (c), c. or c alone
        if named := named or _mentions(after, choices):
            return named[0].label
    return None


def _called_right(text: str, choices: Mapping[str, str]) -> str | None:
    """The last choice of which it is said that it is right."""
    right = [
        mention.label
        for mention in _mentions(text, choices, loose=True)
        if _RIGHT.match(text, mention.end) and not _SUPPOSED.search(text[max(0, mention.start - _NEAR) : mention.start])
    ]
    return right[-1] if right else None


def _first_label(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter that begins the answer as a label, if its line has no other label."""
    line = text.strip().partition("\n")[0]
    if first := _FIRST_LABEL.match(text):
        others = set(mentions(line, dict.fromkeys(choices, ""))) - {first[1]}
        return first[1] if first[1] in choices and not others else None
    if first := _FIRST_SMALL.match(text):
        label = first[1].upper()
        return label if label in choices and set(_SMALL.findall(line)) == {first[1]} else None
    return None


def _alone(text: str, choices: Mapping[str, str]) -> Reading | None:
    """The only choice of the first sentence that names some."""
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence.strip()]
    for place, sentence in enumerate(sentences):
        distinct = set(mentions(sentence, choices))
        if distinct:
            marked = place in (0, len(sentences) - 1)
            return Reading(distinct.pop(), marked) if len(distinct) == 1 else None
    return None


def score(id: str, answer: str, expected: str, choices: Mapping[str, str]) -> Score:
    """Correct if the answer names the choice with the label ``expected``."""
    given = reading(answer, choices)
    said = None if given is None else _text(given.label, choices)
    # A benchmark may offer one text under two labels: each is as right as the other.
    correct = said is not None and said == _text(expected, choices)
    return Score(id=id, value=float(correct), correct=correct, parsed=said, marked=given is not None and given.marked)


def _text(label: str, choices: Mapping[str, str]) -> str:
    """The text of a choice; one without a text is its label."""
    return choices.get(label) or label


def cloze(id: str, question: str, texts: Sequence[str], right: int) -> Example:
    """A bare question that the text of a choice goes on from, as lm-evaluation-harness asks ARC."""
    choices = dict(zip(ascii_uppercase, texts, strict=False))
    answer = ascii_uppercase[right]
    return Example(
        id=id,
        messages=({"role": PLAIN, "content": f"Question: {question}\nAnswer:"},),
        target=f" {choices[answer]}",
        meta={"question": question, "answer": answer, "choices": choices, "labels": list(choices)},
    )


def example(id: str, question: str, texts: Sequence[str], right: int) -> Example:
    """A question with lettered choices, one to a line, to be answered in the form that ``read`` reads back."""
    choices = dict(zip(ascii_uppercase, texts, strict=False))
    answer = ascii_uppercase[right]
    asked = "\n".join([question, *(f"{label}) {text}" for label, text in choices.items())])
    return Example(
        id=id,
        messages=(
            {"role": "system", "content": "Answer with the letter of the right choice."},
            {"role": "user", "content": asked},
        ),
        target=f"{answer}) {choices[answer]}",
        meta={"question": question, "answer": answer, "choices": choices, "labels": list(choices)},
    )
