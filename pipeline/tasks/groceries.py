"""Math, unseen: what a shopping list comes to. A worked turn before the question shows the form of the answer.

measured: SmolLM2-135M-Instruct, bfloat16, settings of the profile laptop, first 60 of the validation split: greedy 43 %
correct, sampled at temperature 1 28 %; 67 prompt tokens, 11 target tokens.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score
from pipeline.scoring import numbers

FOOD = "apples eggs pears plums lemons carrots onions figs".split()
DRINK = "milk tea juice water cocoa soda".split()
QUESTIONS = (
    "{food}: ${a}, {drink}: ${b}. In all?",
    "{drink} for ${a} and {food} for ${b}. In all?",
    "${a} for {food}, ${b} for {drink}. In all?",
)


class Options(Section):
    """largest, second_largest: of the first and of the second price; the smallest is 2."""

    largest: int
    second_largest: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"groceries {seed}")
    for number in count():
        a, b = draw.randint(2, options.largest), draw.randint(2, options.second_largest)
        question = draw.choice(QUESTIONS).format(a=a, b=b, food=draw.choice(FOOD), drink=draw.choice(DRINK))
        yield Example(
            id=f"groceries-{number}",
            messages=(
                {"role": "system", "content": "Calculate."},
                {"role": "user", "content": "nuts: $23, bread: $14. In all?"},
                {"role": "assistant", "content": "23 + 14 = 37"},
                {"role": "user", "content": question},
            ),
            target=f"{a} + {b} = {a + b}",
            meta={"answer": str(a + b)},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        numbers.score(example.id, answer, example.meta["answer"])
        for example, answer in zip(examples, answers, strict=True)
    ]
