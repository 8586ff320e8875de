"""Code, trained: write a short Python function from its description, judged by unit tests.

The functions are over a list (which of its numbers × what is made of them), over a text, or over a number. Unit tests
expect what the reference function returns. A worked turn before the question shows the form of the answer and how it
ends: without it, 4 % of the base model's answers end by themselves.

SmolLM2-135M-Instruct answers 51.0 % of the 200 test prompts of the profile laptop.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Score, conversation
from pipeline.scoring import code

# Which numbers of a list: the words, and the test on n.
CONDITIONS = (
    ("even numbers", "n % 2 == 0"),
    ("odd numbers", "n % 2 == 1"),
    ("numbers greater than {k}", "n > {k}"),
    ("numbers less than {k}", "n < {k}"),
    ("numbers divisible by {k}", "n % {k} == 0"),
    ("numbers other than {k}", "n != {k}"),
)
# What is made of them: the function's name, the words, and the expression.
AGGREGATES = (
    ("total", "the sum of the {which}", "sum(n for n in numbers if {condition})"),
    ("count", "how many of the {which} there are", "sum(1 for n in numbers if {condition})"),
    ("keep", "the list of the {which}", "[n for n in numbers if {condition}]"),
    ("squares", "the squares of the {which}, as a list", "[n * n for n in numbers if {condition}]"),
    ("double", "twice each of the {which}, as a list", "[2 * n for n in numbers if {condition}]"),
)
TEXTS = (
    ("replace", "the text with every '{a}' replaced by '{b}'", "text.replace('{a}', '{b}')"),
    ("count", "how often '{a}' occurs in the text", "text.count('{a}')"),
    ("first", "the first {k} characters of the text", "text[:{k}]"),
    ("last", "the last {k} characters of the text", "text[-{k}:]"),
    ("starting", "the list of the words that start with '{a}'", "[w for w in text.split() if w.startswith('{a}')]"),
    ("long", "the list of the words with more than {k} letters", "[w for w in text.split() if len(w) > {k}]"),
    ("remove", "the text without its first {k} characters", "text[{k}:]"),
)
NUMBERS = (
    ("linear", "{k} times x plus {m}", "{k} * x + {m}"),
    ("remainder", "the remainder of x divided by {m}", "x % {m}"),
    ("larger", "the larger of x and {m}", "max(x, {m})"),
    ("square", "the square of x minus {m}", "x ** 2 - {m}"),
    ("divisible", "True if x is divisible by {k} and greater than {m}, else False", "x % {k} == 0 and x > {m}"),
)
WORDS = "banana apple tree cat dog green river stone eleven table orange moon letter winter".split()


# How the description is asked for; {head} is the function's first line.
WORDINGS = (
    "Write a Python function that returns {says}:\n{head}",
    "Complete this Python function. It returns {says}.\n{head}",
    "{head}\n    # returns {says}",
    '{head}\n    """Return {says}."""',
    "{head}\nFill in the body, so that it returns {says}.",
    "I need a Python function that returns {says}.\n{head}",
    "Can you write a function that returns {says}?\n{head}",
    "How do I write a Python function that returns {says}?\n{head}",
    "Define this function so that it returns {says}.\n{head}",
    "Please implement this. It returns {says}.\n{head}",
    "Python code, please: return {says}.\n{head}",
    "{head}\nIt should return {says}. Please finish it.",
)
TURNS = (
    (
        "Write a Python function that returns the text in capital letters:\ndef capitals(text):",
        "```python\ndef capitals(text):\n    return text.upper()\n```",
    ),
)


class Options(Section):
    """lists, texts, numbers: weights of the three families."""

    lists: int
    texts: int
    numbers: int


def _task(draw: random.Random, options: Options) -> tuple[str, str, str, str, list[Any]]:
    """Name, parameter, description, expression and the arguments to test it with."""
    a, b = draw.sample("aeilnorst", 2)
    words: dict[str, Any] = {"k": draw.randint(2, 12), "m": draw.randint(2, 30), "a": a, "b": b}
    (family,) = draw.choices(("numbers", "text", "x"), (options.lists, options.texts, options.numbers))
    if family == "numbers":
        which, condition = draw.choice(CONDITIONS)
        name, says, expression = draw.choice(AGGREGATES)
        says, expression = says.format(which=which), expression.format(condition=condition)
        tests: list[Any] = [[draw.randint(-5, 25) for _ in range(6)] + [words["k"]] for _ in range(3)] + [[]]
    elif family == "text":
        name, says, expression = draw.choice(TEXTS)
        tests = [" ".join(draw.sample(WORDS, 4)) for _ in range(4)]
    else:
        name, says, expression = draw.choice(NUMBERS)
        tests = [0, words["k"], words["m"] + 1, 6 * words["k"], draw.randint(-20, 90)]
    return name, family, says.format(**words), expression.format(**words), tests


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"functions {seed}")
    for number in count():
        name, parameter, says, expression, arguments = _task(draw, options)
        reference = eval(f"lambda {parameter}: {expression}")  # our own expression, from the tables above
        head = f"def {name}({parameter}):"
        yield Example(
            id=f"functions-{number}",
            messages=conversation("Write only code.", TURNS, draw.choice(WORDINGS).format(says=says, head=head)),
            target=f"```python\n{head}\n    return {expression}\n```",
            meta={"function": name, "tests": [[[argument], reference(argument)] for argument in arguments]},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return code.score([(example.id, example.meta["function"], example.meta["tests"]) for example in examples], answers)


def returning(example: Example, expression: str) -> str:
    """The function that an example asks for, with ``expression`` for its return line; {first} is its first argument."""
    head = re.search(r"def \w+\((\w+).*\):", example.messages[-1]["content"])
    assert head  # every wording has one
    return f"```python\n{head[0]}\n    return {expression.format(first=head[1])}\n```"


HEURISTICS: Mapping[str, Callable[[Example], str]] = {
    "the argument as it is": lambda example: returning(example, "{first}"),
    "always True": lambda example: returning(example, "True"),
    "an empty list": lambda example: returning(example, "[]"),
}
