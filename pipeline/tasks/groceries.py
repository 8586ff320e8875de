"""Math, unseen: what a shopping list comes to. Worked turns before the question show the form of the answer.

SmolLM2-135M-Instruct answers 58.0 % of the 200 test prompts of the profile laptop.
"""

import random
from collections.abc import Iterator
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, conversation
from pipeline.tasks.sums import HEURISTICS, score

__all__ = ["HEURISTICS", "Options", "examples", "score"]

FOOD = "apples eggs pears plums lemons carrots onions figs".split()
DRINK = "milk tea juice water cocoa soda".split()
WORDINGS = (
    "{food}: ${a}, {drink}: ${b}. In all?",
    "{drink} for ${a} and {food} for ${b}. In all?",
    "${a} for {food}, ${b} for {drink}. In all?",
    "I bought {food} for ${a} and {drink} for ${b}. How much did I spend?",
    "The {food} cost ${a} and the {drink} costs ${b}. What is the total?",
    "My list: {food} ${a}, {drink} ${b}. What does it come to?",
    "{food} ${a}, {drink} ${b}. Total?",
    "If {food} cost ${a} and {drink} costs ${b}, how much do I pay?",
    "What do I pay for {food} (${a}) and {drink} (${b})?",
    "Add up my bill: {food} ${a}, {drink} ${b}.",
    "{food} for ${a} and {drink} for ${b}, how much do I owe?",
    "{food} are ${a}. {drink} is ${b}. How much is it?",
)
TURNS = (
    ("nuts: $23, bread: $14. In all?", "23 + 14 = 37"),
    ("I pay $31 for rice and $8 for cheese. How much is that?", "31 + 8 = 39"),
    ("The cake cost $12 and the ham cost $25. How much did I spend?", "12 + 25 = 37"),
)


class Options(Section):
    """largest, second_largest: of the first and of the second price; the smallest is 2."""

    largest: int
    second_largest: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"groceries {seed}")
    for number in count():
        a, b = draw.randint(2, options.largest), draw.randint(2, options.second_largest)
        bought = {"food": draw.choice(FOOD), "drink": draw.choice(DRINK)}
        yield Example(
            id=f"groceries-{number}",
            messages=conversation("Calculate.", TURNS, draw.choice(WORDINGS).format(a=a, b=b, **bought)),
            target=f"{a} + {b} = {a + b}",
            meta={"answer": str(a + b)},
        )
