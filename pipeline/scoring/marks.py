"""What readers of answers share: where an answer says that it answers, and where it has ended.

An answer may be marked: "the answer is 5", "**Answer**: 5", "Answer" on a line of its own, "<answer>5</answer>",
"#### 5", "\\boxed{5}". The last mark that says something counts. A model that goes on with a further question of its
own has answered before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Numbers of repetitions are bounded, so that no text makes the search slow.
_EMPHASIS = r"[*_`\"' \t]{0,8}"
_MARK = re.compile(
    rf"(?P<tag><answer>)|####|\\f?box(?:ed)?\s{{0,8}}(?P<box>\{{)|"
    rf"answer{_EMPHASIS}(?:\s{{1,8}}(?:is|was)\b{_EMPHASIS}:?|\s{{0,8}}[:=]|\n)",
    re.IGNORECASE,
)
_FURTHER = re.compile(
    r"\n[ \t]{0,8}(?:\*\*|#{1,6}[ \t]?)?"
    r"(?:Question|Problem|Exercise|Instruction|User|Human|Q)\b[ \t]?(?P<number>\d{0,4})[ \t]?[:.)]"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z])|\n[ \t]*\n")
_BRACE = re.compile(r"[{}]")
_LOOKED_AT = 20  # marks, from the last one


@dataclass(frozen=True)
class Said:
    """What follows a mark.

    start, end: where it stands in the text. enclosed: whether it is in a box or a tag; else it is a sentence.
    cut: whether the box or the tag does not close.
    """

    start: int
    end: int
    enclosed: bool = False
    cut: bool = False


def behind_marks(text: str) -> Iterator[Said]:
    """What follows each mark of a text, the last mark first: what is in the box or the tag, or the sentence."""
    for mark in list(_MARK.finditer(text))[: -_LOOKED_AT - 1 : -1]:
        start = mark.end()
        if mark["box"]:
            end = end_of_braces(text, start)
            yield Said(start, end, enclosed=True, cut=end == len(text))
        elif mark["tag"]:
            end = text.find("</", start)
            yield Said(start, len(text) if end < 0 else end, enclosed=True, cut=end < 0)
        else:
            start += len(text) - start - len(text[start:].lstrip())
            end_of_sentence = _SENTENCE_END.search(text, start)
            yield Said(start, end_of_sentence.start() if end_of_sentence else len(text))


def end_of_braces(text: str, start: int) -> int:
    """Where the braces close that were opened before ``start``; the end of the text if they do not."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start()
    return len(text)


def answered(text: str) -> str:
    """A text up to a further question that it asks itself, if it has answered before.

    It has if there was a mark; or an equation, where no mark comes later. A question with a number is no further one in
    an answer that goes through numbered questions.
    """
    mark, equation = _MARK.search(text), text.find("=")
    if mark is None and equation < 0:
        return text
    place = mark.start() if mark else equation
    numbered = any(question["number"] for question in _FURTHER.finditer(f"\n{text[:place]}"))
    for question in _FURTHER.finditer(text, place):
        if not (question["number"] and numbered):
            return text[: question.start()]
    return text
