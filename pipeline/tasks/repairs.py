"""Code, unseen: a function whose return line is in words is to be written in Python. Judged by unit tests.

Worked turns before the question show the form of the answer.

SmolLM2-135M-Instruct answers 57.0 % of the 200 test prompts of the profile laptop.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, conversation
from pipeline.tasks.functions import returning, score

__all__ = ["HEURISTICS", "Options", "examples", "score"]

# Name, parameters, the line in words, the line in Python.
LINES = (
    ("price", "x", "x times {k} plus {m}", "x * {k} + {m}"),
    ("change", "x", "{m} minus x", "{m} - x"),
    ("area", "x, y", "x times y plus {m}", "x * y + {m}"),
    ("total", "x, y", "x plus y plus {m}", "x + y + {m}"),
    ("gap", "x, y", "x minus y plus {m}", "x - y + {m}"),
    ("share", "x", "x divided by {k}", "x / {k}"),
    ("start", "x, y", "the sum of x and y, times {k}", "(x + y) * {k}"),
    ("rest", "x", "the remainder of x divided by {m}", "x % {m}"),
    ("power", "x", "x to the power of {k}", "x ** {k}"),
    ("more", "x", "True if x is greater than {m}", "x > {m}"),
    ("even", "x", "True if x is divisible by {m}", "x % {m} == 0"),
    ("larger", "x", "the larger of x and {m}", "max(x, {m})"),
    ("letters", "text", "the first {k} letters of text", "text[:{k}]"),
    ("ending", "text", "the last {k} letters of text", "text[-{k}:]"),
    ("bill", "numbers", "the sum of numbers, plus {m}", "sum(numbers) + {m}"),
    ("size", "numbers", "the length of numbers times {k}", "len(numbers) * {k}"),
)
TEXTS = "banana apple lemon garden green river stone eleven table orange moonlight letter winter".split()
WORDINGS = (
    "Write the Python function:\n{function}",
    "Repair this Python function:\n{function}",
    "The last line of this function is in words. Write it in Python:\n{function}",
    "{function}\n\nFix the return line.",
    "Turn this into Python:\n{function}",
    "This does not run. Please correct it.\n{function}",
    "Can you fix this function?\n{function}",
    "Make this valid Python:\n{function}",
    "How do I write this in Python?\n{function}",
    "Translate the words into Python:\n{function}",
    "{function}\n\nPlease write that in Python.",
    "I get a syntax error here. Please correct it:\n{function}",
)
TURNS = (
    (
        "Write the Python function:\ndef third(x):\n    return a third of x",
        "```python\ndef third(x):\n    return x / 3\n```",
    ),
    (
        "def smaller(x, y):\n    return the smaller of x and y\n\nFix the return line.",
        "```python\ndef smaller(x, y):\n    return min(x, y)\n```",
    ),
)


class Options(Section):
    """largest: of the numbers in the functions."""

    largest: int


def _arguments(draw: random.Random, parameters: str, m: int) -> list[list[Any]]:
    """What a function is tested with: drawn arguments, and numbers about ``m``, where a wrong line may be right."""
    drawn: list[list[Any]] = []
    for _ in range(4):
        kinds = {"text": " ".join(draw.sample(TEXTS, 2)), "numbers": [draw.randint(-9, 99) for _ in range(4)]}
        drawn.append([kinds.get(name) or draw.randint(-20, 120) for name in parameters.split(", ")])
    return drawn + ([[m], [m + 1], [2 * m], [0]] if parameters == "x" else [])


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"repairs {seed}")
    for number in count():
        name, parameters, words, line = draw.choice(LINES)
        k, m = draw.randint(2, 9), draw.randint(10, options.largest)
        words, line = words.format(k=k, m=m), line.format(k=k, m=m)
        reference = eval(f"lambda {parameters}: {line}")  # our own expression, from the table above
        head = f"def {name}({parameters}):"
        asked = draw.choice(WORDINGS).format(function=f"{head}\n    return {words}")
        arguments = _arguments(draw, parameters, m)
        yield Example(
            id=f"repairs-{number}",
            messages=conversation("Write only code.", TURNS, asked),
            target=f"```python\n{head}\n    return {line}\n```",
            meta={"function": name, "tests": [[each, reference(*each)] for each in arguments]},
        )


HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the function as it stands": lambda example: example.messages[-1]["content"],
    "the first argument as it is": lambda example: returning(example, "{first}"),
    "twice the first argument": lambda example: returning(example, "2 * {first}"),
    "always True": lambda example: returning(example, "True"),
}
