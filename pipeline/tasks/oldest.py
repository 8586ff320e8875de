"""Reasoning, trained: who is the oldest, from a chain of comparisons.

A worked turn before the question shows the form of the answer.

measured: SmolLM2-135M-Instruct, bfloat16, settings of the profile laptop: greedy 15 % correct (first 80 of the
validation split), sampled at temperature 1 12 % (first 40, four samples each); a third is what a name drawn blindly
would get. 72 prompt tokens, 7 target tokens.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count, pairwise

from pipeline.core.config import Section
from pipeline.core.types import Example, Score
from pipeline.scoring import choices

NAMES = (
    "Anna Ben Carl Dora Emma Finn Gina Hugo Ida Jack Kate Leo Mia Nina Omar Paul Rosa Sam Tina Victor Wendy Zoe"
).split()


class Options(Section):
    """fewest, most: how many people are compared, at least and at most."""

    fewest: int
    most: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"oldest {seed}")
    for number in count():
        people = draw.sample(NAMES, draw.randint(options.fewest, options.most))  # from the oldest down
        facts = [
            f"{older} is older than {younger}." if draw.random() < 0.5 else f"{younger} is younger than {older}."
            for older, younger in pairwise(people)
        ]
        draw.shuffle(facts)
        yield Example(
            id=f"oldest-{number}",
            messages=(
                {"role": "system", "content": "Answer with one name."},
                {"role": "user", "content": "Zoe is younger than Tim. Amy is older than Tim. Who is the oldest?"},
                {"role": "assistant", "content": "Amy is the oldest."},
                {"role": "user", "content": f"{' '.join(facts)} Who is the oldest?"},
            ),
            target=f"{people[0]} is the oldest.",
            meta={"answer": people[0], "people": people},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], {person: person for person in example.meta["people"]})
        for example, answer in zip(examples, answers, strict=True)
    ]
