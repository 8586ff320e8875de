"""Reasoning, unseen: who stands first, or last, in a queue, from who is ahead of or behind whom.

A worked turn before the question shows the form of the answer.

measured: SmolLM2-135M-Instruct, bfloat16, settings of the profile laptop, first 60 of the validation split: greedy 23 %
correct, sampled at temperature 1 12 %; 67 prompt tokens, 6 target tokens.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count, pairwise

from pipeline.core.config import Section
from pipeline.core.types import Example, Score
from pipeline.scoring import choices

NAMES = (
    "Adam Bella Chloe David Eric Fiona Grace Henry Irene James Karen Laura Mark Nora Oscar Peter Ruth Simon Thomas Vera"
).split()


class Options(Section):
    """fewest, most: how many people stand in the queue, at least and at most."""

    fewest: int
    most: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"queue {seed}")
    for number in count():
        people = draw.sample(NAMES, draw.randint(options.fewest, options.most))  # from the first to the last
        facts = [
            f"{ahead} is ahead of {behind}." if draw.random() < 0.5 else f"{behind} is behind {ahead}."
            for ahead, behind in pairwise(people)
        ]
        draw.shuffle(facts)
        place, answer = draw.choice((("first", people[0]), ("last", people[-1])))
        yield Example(
            id=f"queue-{number}",
            messages=(
                {"role": "system", "content": "Answer with one name."},
                {"role": "user", "content": f"Zoe is behind Tim. Amy is ahead of Tim. Who is {place}?"},
                {"role": "assistant", "content": f"{'Amy' if place == 'first' else 'Zoe'} is {place}."},
                {"role": "user", "content": f"{' '.join(facts)} Who is {place}?"},
            ),
            target=f"{answer} is {place}.",
            meta={"answer": answer, "people": people},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], {person: person for person in example.meta["people"]})
        for example, answer in zip(examples, answers, strict=True)
    ]
