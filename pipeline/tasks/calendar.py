"""Reasoning, one of many skills: which day of the week comes some days after, or before, another.

A worked turn before the question shows the form of the answer. The prompts also vary in who has what on that day: days
and distances alone make too few for disjoint splits.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score, conversation
from pipeline.scoring import choices

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NAMES = (
    "Anna Ben Carl Dora Emma Finn Gina Hugo Ida Jack Kate Leo Mia Nina Omar Paul Rosa Sam Tina Victor Wendy Zoe"
).split()
EVENTS = "meeting lesson party visit call exam concert trip".split()
TURNS = (("Amy has a walk 2 days after Tuesday. Which day is it?", "It is Thursday."),)


class Options(Section):
    """farthest: the largest distance, in days."""

    farthest: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"calendar {seed}")
    for number in count():
        day, distance = draw.randrange(7), draw.randint(1, options.farthest)
        later = draw.random() < 0.5
        answer = DAYS[(day + distance if later else day - distance) % 7]
        asked = f"{draw.choice(NAMES)} has a {draw.choice(EVENTS)}"
        when = f"{distance} day{'s' if distance > 1 else ''} {'after' if later else 'before'} {DAYS[day]}"
        yield Example(
            id=f"calendar-{number}",
            messages=conversation("Answer with one day.", TURNS, f"{asked} {when}. Which day is it?"),
            target=f"It is {answer}.",
            meta={"answer": answer, "choices": {day: day for day in DAYS}, "from": DAYS[day]},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], example.meta["choices"])
        for example, answer in zip(examples, answers, strict=True)
    ]


HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the day that is named": lambda example: example.meta["from"],
    "the day after the one that is named": lambda example: DAYS[(DAYS.index(example.meta["from"]) + 1) % 7],
    "the day before the one that is named": lambda example: DAYS[DAYS.index(example.meta["from"]) - 1],
}
