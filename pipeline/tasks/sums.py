"""Math, trained: add two whole numbers. Worked turns before the question show the form of the answer.

SmolLM2-135M-Instruct answers 43.5 % of the 200 test prompts of the profile laptop.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score, conversation
from pipeline.scoring import numbers

WORDINGS = (
    "{a} + {b} =",
    "{a} + {b}",
    "{a}+{b}=?",
    "What is {a} + {b}?",
    "What's {a} plus {b}?",
    "How much is {a} + {b}",
    "How much is {a} plus {b}?",
    "add {a} and {b}",
    "Add {b} to {a}.",
    "What is the sum of {a} and {b}?",
    "Calculate {a} + {b}.",
    "Please compute {a} plus {b}.",
    "{a} plus {b} equals",
    "Can you add {a} and {b}?",
    "I have {a} and get {b} more. How many is that?",
    "Tell me {a} plus {b}.",
)
TURNS = (("add 40 and 31", "40 + 31 = 71"), ("How much is 56 plus 28?", "56 + 28 = 84"))


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
            messages=conversation("Add.", TURNS, draw.choice(WORDINGS).format(a=a, b=b)),
            target=f"{a} + {b} = {a + b}",
            meta={"answer": str(a + b)},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        numbers.score(example.id, answer, example.meta["answer"])
        for example, answer in zip(examples, answers, strict=True)
    ]


def _asked(example: Example) -> list[str]:
    """The numbers of the question, in order."""
    return re.findall(r"\d+", example.messages[-1]["content"])


HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the first number": lambda example: _asked(example)[0],
    "the last number": lambda example: _asked(example)[-1],
    "the larger number": lambda example: max(_asked(example), key=int),
    "the larger number and ten": lambda example: str(max(map(int, _asked(example))) + 10),
    "twice the larger number": lambda example: str(2 * max(map(int, _asked(example)))),
}
