"""Answers that name one of several choices, by its label (A, B, ...) or by its text.

Which mention counts:
1. after the last "answer is" or "answer:", the first choice that is named there;
2. without such a mark, a letter that begins the answer as a label ("B) ...") decides if its line has no other label;
3. without that, the first sentence that names a choice decides, and must name one choice only. A sentence
   that names several ("Ann is older than Bob") gives no answer, nor does a list of all choices: neither the first
   nor the last mention is taken on trust.

A choice named by its text is found whatever its case, whole words only, the longest text first ("red car" is not
"red"). A label counts in capitals and where it stands as a label: "(B)", "B)", "B." or alone on its line, and after
a mark, stars of markdown aside; the "A" of "A dog" is none.
"""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from pipeline.core.types import Example, Score

_MARK = re.compile(r"answer(?:\s+is|\s*:)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|\n+")


def mentions(text: str, choices: Mapping[str, str]) -> list[str]:
    """The labels of the choices named in a text, in order. ``choices``: label to text."""
    by_text = {choice.casefold(): label for label, choice in choices.items() if choice}
    longest_first = sorted(by_text, key=len, reverse=True)
    words = "|".join(re.escape(choice) for choice in longest_first) or r"(?!)"
    labels = "|".join(re.escape(label) for label in choices)
    pattern = re.compile(
        rf"(?<!\w)(?i:(?P<text>{words}))(?!\w)|(?:(?<=[(*])|(?<!\S))(?P<label>{labels})(?=[).:,*]|\s*$)"
    )
    return [match["label"] or by_text[match["text"].casefold()] for match in pattern.finditer(text)]


def read(answer: str, choices: Mapping[str, str]) -> str | None:
    """The label of the choice an answer names; None where it names none, or several."""
    marks = list(_MARK.finditer(answer))
    if marks:
        after = answer[marks[-1].end() :]
        first_word = re.match(r"\W*(\w+)", after)
        if first_word and first_word[1] in choices:
            return first_word[1]
        if named := mentions(after, choices):
            return named[0]
    first_letter = re.match(r"[\s(*]*([A-Z])[).:*]", answer)
    if first_letter and set(mentions(answer.strip().partition("\n")[0], dict.fromkeys(choices, ""))) == {
        first_letter[1]
    }:
        return first_letter[1]
    for sentence in _SENTENCE_END.split(answer):
        distinct = set(mentions(sentence, choices))
        if distinct:
            return distinct.pop() if len(distinct) == 1 else None
    return None


def score(id: str, answer: str, expected: str, choices: Mapping[str, str]) -> Score:
    """Correct if the answer names the choice with the label ``expected``."""
    label = read(answer, choices)
    return Score(
        id=id,
        value=float(label == expected),
        correct=label == expected,
        parsed=None if label is None else choices[label],
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


def offered(example: Example) -> dict[str, str]:
    """Label to text of an example's choices, as they are weighed: a choice without a text is its label; {} for none."""
    return {label: text or label for label, text in example.meta.get("choices", {}).items()}


def most_likely(log_likelihoods: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """Which of several texts a model finds likeliest, the first of equals; per unit of length where lengths are given.

    With lengths in characters this is lm-evaluation-harness's ``acc_norm``, without any its ``acc``.
    """
    values = (
        [value / length for value, length in zip(log_likelihoods, lengths, strict=True)] if lengths else log_likelihoods
    )
    return max(range(len(values)), key=lambda place: (values[place], -place))
