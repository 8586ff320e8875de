"""Math, trained: add two whole numbers. A worked turn before the question shows the form of the answer.

measured: SmolLM2-135M-Instruct, bfloat16, settings of the profile laptop: greedy 39 % correct (first 100 of the
validation split), sampled at temperature 1 22 % (first 60); 51 prompt tokens, 12 target tokens.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score
from pipeline.scoring import numbers


class Options(Section):
    """smallest, largest: the range of both numbers, inclusive."""

    smallest: int
    largest: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"sums {seed}")
    for number in count():
        a, b = (draw.randint(options.smallest, options.largest) for _ in range(2))
        yield Example(
            id=f"sums-{number}",
            messages=(
                {"role": "system", "content": "Add."},
                {"role": "user", "content": "23 + 14 ="},
                {"role": "assistant", "content": "23 + 14 = 37"},
                {"role": "user", "content": f"{a} + {b} ="},
            ),
            target=f"{a} + {b} = {a + b}",
            meta={"answer": str(a + b)},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        numbers.score(example.id, answer, example.meta["answer"])
        for example, answer in zip(examples, answers, strict=True)
    ]
