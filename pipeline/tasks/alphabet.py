"""Reasoning, one of many skills: which of some words comes first in the alphabet.

A worked turn before the question shows the form of the answer.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score, conversation
from pipeline.scoring import choices

WORDS = (
    "apple bridge candle desk engine forest garden hammer island jacket kitchen ladder mirror needle ocean pencil "
    "quarter river shadow table umbrella village window yellow zebra bottle corner dinner flower guitar"
).split()
TURNS = (("Which comes first in the alphabet: train, cloud, paper?", "cloud comes first."),)


class Options(Section):
    """fewest, most: how many words are compared, at least and at most."""

    fewest: int
    most: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"alphabet {seed}")
    for number in count():
        words = draw.sample(WORDS, draw.randint(options.fewest, options.most))
        first = min(words)
        yield Example(
            id=f"alphabet-{number}",
            messages=conversation(
                "Answer with one word.", TURNS, f"Which comes first in the alphabet: {', '.join(words)}?"
            ),
            target=f"{first} comes first.",
            meta={"answer": first, "choices": {word: word for word in words}},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], example.meta["choices"])
        for example, answer in zip(examples, answers, strict=True)
    ]


HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the shortest word": lambda example: min(example.meta["choices"], key=len),
    "the longest word": lambda example: max(example.meta["choices"], key=len),
}
