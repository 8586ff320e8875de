"""Reading, unseen: what follows from what stands on a sign: a sum, the larger number, the capital, the month after.

Nothing of it is on the sign. Signs with these words and sums are not shown to a tower that is trained here. There are
few countries, days and months, so one of them stands on several signs, each drawn anew.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example
from pipeline.pictures import signs
from pipeline.pictures.questions import OF_THE_TASKS, Asked
from pipeline.tasks.signs import asked, known, score

__all__ = ["HEURISTICS", "Options", "examples", "score"]


class Options(Section):
    """kinds: of questions, each as often; see ``KINDS``."""

    kinds: tuple[str, ...]


def total(draw: random.Random) -> Asked:
    text = OF_THE_TASKS.string(signs.sum_of_two, draw)
    return text, "What is the sum of the two numbers?", str(sum(map(int, text.split(" + "))))


def larger(draw: random.Random) -> Asked:
    both = OF_THE_TASKS.unlike(draw)
    return " ".join(both), "Which of the two numbers is larger?", max(both, key=int)


def capital(draw: random.Random) -> Asked:
    country = draw.choice(list(signs.CAPITALS))
    question = "What is the capital of the country on the sign?"
    return signs.cased(country, draw), question, signs.CAPITALS[country].lower()


def after(draw: random.Random) -> Asked:
    names, noun = (signs.MONTHS, "month") if draw.random() < 0.6 else (signs.DAYS, "day")
    place = draw.randrange(len(names) - 1)
    question = f"Which {noun} comes after the {noun} on the sign?"
    return signs.cased(names[place], draw), question, names[place + 1].lower()


KINDS: Mapping[str, Callable[[random.Random], Asked]] = {
    "sum": total,
    "larger": larger,
    "capital": capital,
    "after": after,
}


# They know what stands on the sign, so they are the score of who reads without a fault and thinks nothing.
HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the first of what stands on the sign, read without a fault": lambda example: example.meta["sign"].split()[0],
    "the last of what stands on the sign, read without a fault": lambda example: example.meta["sign"].split()[-1],
}


def examples(seed: int, options: Options) -> Iterator[Example]:
    kinds = known(options.kinds, KINDS, "sign_questions")
    draw = random.Random(f"sign questions {seed}")
    for place in count():
        kind = kinds[place % len(kinds)]
        yield asked(f"sign_questions-{place}", kind, KINDS[kind](draw), draw)
