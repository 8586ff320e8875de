"""Code, unseen: a function whose return line is in words is to be written in Python. Judged by unit tests.

measured: SmolLM2-135M-Instruct, bfloat16, with 56 new tokens, first 60 of the validation
split: greedy 43 % correct, sampled at temperature 1 10 %; 40 prompt tokens, 21 target tokens.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count

from pipeline.core.config import Section
from pipeline.core.types import Example, Score
from pipeline.scoring import code

# Name, parameters, the line in words, the line in Python.
LINES = (
    ("price", "x", "x times {k} plus {m}", "x * {k} + {m}"),
    ("change", "x", "{m} minus x", "{m} - x"),
    ("share", "x", "x minus {m}, divided by {k}", "(x - {m}) / {k}"),
    ("more", "x", "whether x is at least {m}", "x >= {m}"),
    ("both", "x", "whether x is between {k} and {m}", "{k} < x < {m}"),
    ("area", "x, y", "x times y plus {m}", "x * y + {m}"),
    ("scale", "x, y", "{k} times the larger of x and y", "{k} * max(x, y)"),
    ("start", "x, y", "the sum of x and y, times {k}", "(x + y) * {k}"),
    ("gap", "x, y", "x minus y plus {m}", "x - y + {m}"),
)


class Options(Section):
    """largest: of the numbers in the functions."""

    largest: int


def examples(seed: int, options: Options) -> Iterator[Example]:
    draw = random.Random(f"repairs {seed}")
    for number in count():
        name, parameters, words, line = draw.choice(LINES)
        k, m = draw.randint(2, 9), draw.randint(10, options.largest)
        words, line = words.format(k=k, m=m), line.format(k=k, m=m)
        reference = eval(f"lambda {parameters}: {line}")  # our own expression, from the table above
        width = parameters.count(",") + 1
        # Apart from the bounds k and m themselves, which "between" leaves open.
        arguments = [[m + 1] * width, [k - 1] * width, list(range(k + 1, k + 1 + width)), [0] * width]
        arguments += [[draw.randint(m + 2, 2 * options.largest) for _ in range(width)] for _ in range(2)]
        arguments += [[m] * width] if name == "more" else []
        yield Example(
            id=f"repairs-{number}",
            messages=(
                {"role": "system", "content": "Write only code."},
                {
                    "role": "user",
                    "content": f"Write the Python function:\ndef {name}({parameters}):\n    return {words}",
                },
            ),
            target=f"```python\ndef {name}({parameters}):\n    return {line}\n```",
            meta={"function": name, "tests": [[each, reference(*each)] for each in arguments]},
        )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return code.score([(example.id, example.meta["function"], example.meta["tests"]) for example in examples], answers)
