"""Answer by choosing: the likeliest of the choices that an example offers (a cloze); nothing is written.

A small model that cannot name the letter of an answer may yet know the answer. The text of each choice is weighed as
the whole answer to the prompt, by its log-likelihood: as it is (``sum``, lm-evaluation-harness's ``acc``), or per token
or per character (its ``acc_norm``), which does not favour short choices.
"""

from collections.abc import Sequence

from pipeline.core.types import PLAIN, Example
from pipeline.model.decoding.batch import Answer, Per
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.base import Adapted, Base


def continuations(base: Base, example: Example, *, ended: bool = False) -> list[list[int]]:
    """The token ids of each choice's text, as the answer to the example's prompt.

    ended: with the end-of-sequence token behind it, so that a choice that begins another is not favoured.
    """
    before = " " if example.messages[-1]["role"] == PLAIN else ""
    return [base.answer_ids(before + text)[: None if ended else -1] for text in example.choices.values()]


def lengths(example: Example, choices: Sequence[Sequence[int]], per: Per) -> list[int]:
    """What each choice's log-likelihood is divided by. choices: its ``continuations``."""
    if per == "token":
        return [len(ids) for ids in choices]
    return [len(text) if per == "character" else 1 for text in example.choices.values()]


def likeliest(log_likelihoods: Sequence[float], divisors: Sequence[int]) -> int:
    """Which of several texts a model finds likeliest, the first of equals."""
    values = [value / divisor for value, divisor in zip(log_likelihoods, divisors, strict=True)]
    return max(range(len(values)), key=lambda place: (values[place], -place))


def choose(
    adapted: Adapted, examples: Sequence[Example], per: Per, *, rows: Sequence[int] | None = None
) -> list[Answer]:
    """The likeliest choice of each example, as an answer that has ended. rows: see ``weigh``."""
    choices = [continuations(adapted.base, example) for example in examples]
    answers = []
    weighed = weigh(adapted, [adapted.base.prompt_ids(e.messages) for e in examples], choices, rows=rows)
    for example, several, weights in zip(examples, choices, weighed, strict=True):
        place = likeliest(weights, lengths(example, several, per))
        answers.append(Answer(tuple(several[place]), (weights[place],), finished=True))
    return answers
