"""Reading code off answers: by kinds of answers, and in a time that grows with their length."""

import ast
import random
import time
from collections.abc import Callable

import pytest

from pipeline.scoring.code import read

F = "def f(x):\n    return x"


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        (f"```python\n{F}\n```", F),
        (f"```\n{F}\n```\nThat is it.", F),
        (f"Sure:\n\n```python\n{F}", F),
        (F, F),
        (f"Here:\nimport re\n\n{F}", f"import re\n\n{F}"),
        ("```python\ndef g(x):\n    return x\n```", None),
        ("return x", None),
        ("", None),
        # fences
        (f"```python3\n{F}\n```", F),
        (f"```Python 3.11 title='a.py'\n{F}\n```", F),
        (f"``` \t python\n{F}\n``` ", F),
        (f"````\n{F}\n````", F),
        (f"~~~python\n{F}\n~~~", F),
        (f"```python\n{F}```\nDone.", F),
        (f"```python\n{F}\n```python\nf(1)\n```", F),
        ("1. Do:\n\n   ```python\n   def f(x):\n       return x\n   ```\n2. Go.", F),
        ("\t```\n\tdef f(x):\n\t\treturn x\n\t```", "def f(x):\n\treturn x"),
        (f"```text\nno code (\n```\n```python\n{F}\n```", F),
        (f"```\nno end\n\n{F}", None),  # a block ends where its fence does
        # fences in docstrings
        (
            '```python\ndef f(x):\n    """Add.\n\n    ```\n    >>> f(1)\n    ```\n    """\n    return x\n```\nSo.',
            'def f(x):\n    """Add.\n\n    ```\n    >>> f(1)\n    ```\n    """\n    return x',
        ),
        (
            "```python\ndef f(x):\n    '''\n```python\nf(1)\n```\n    '''\n    return x\n```\n```\nf(2)\n```",
            "def f(x):\n    '''\n```python\nf(1)\n```\n    '''\n    return x",
        ),
        # line ends and signs that are not seen
        (f"```python\r\n{F}\r\n```\r\n".replace("x):\n", "x):\r\n"), F),
        (f"```python\r{F}\r```\r".replace("x):\n", "x):\r"), F),
        (f"\ufeff```python\n\ufeff{F}\n```", F),
        (
            "```python\nS = 'a\x0cb\x1c\u2028'\ndef f(x):\n    return S\n```",
            "S = 'a\x0cb\x1c\u2028'\ndef f(x):\n    return S",
        ),
        (f"{F}\n\0\nmore", F),
        (f"{F}\n# \ud800", f"{F}\n# \ufffd"),
        # no fence
        (f"STEP = 1\n\n{F}", f"STEP = 1\n\n{F}"),
        (f"STEP: int = 1\n{F}", f"STEP: int = 1\n{F}"),
        (f"So x = 5 here.\n\nSTEPS = [\n    1,\n]\n# now\n{F}", f"STEPS = [\n    1,\n]\n# now\n{F}"),
        (f"total = 3\nSo the function is:\n\n{F}\nIt returns x.", F),
        (f"from __future__ import annotations\n{F}", f"from __future__ import annotations\n{F}"),
        (f"@cache\n{F}\n\nThat is all.", f"@cache\n{F}"),
        (f"{F}\n```\nThat is it.\n```", F),
        (f"```python\n\tdef g():\n\t\tpass\n```\n{F}", F),
        # what defines it
        ("```\nf = lambda x: x\n```", "f = lambda x: x"),
        ("```\ndef g(x):\n    return x\nf = g\n```", "def g(x):\n    return x\nf = g"),
        (
            "class Solution:\n    def f(self, x):\n        return x",
            "class Solution:\n    def f(self, x):\n        return x",
        ),
        ("```\nclass Other:\n    def f(self, x):\n        return x\n```", None),
        ("```\nasync def f(x):\n    return x\n```", None),
        ("```\nf == 1\n```", None),
        # several pieces
        (f"```\n{F}\n```\nor\n```\ndef f(x):\n    return -x\n```", F),
        (f'def f(x):\n    """Give x."""\n\n```\n{F}\n```', F),
        ("def f(x):\n    ...\n\nOnly that.", "def f(x):\n    ..."),
        (
            "```\ndef g(x):\n    return x\n```\nThen:\n```\ndef f(x):\n    return g(x)\n```",
            "def g(x):\n    return x\n\ndef f(x):\n    return g(x)",
        ),
        (
            "```\nimport re\nK = 1\nprint(f(3))\n```\n```\ndef f(x):\n    return re.sub('a', 'b', x) * K\n```",
            "import re\n\nK = 1\n\ndef f(x):\n    return re.sub('a', 'b', x) * K",
        ),
        (
            "```\n@cache\ndef g(x):\n    return h(x)\n```\n```\ndef f(x):\n    return g(x)\n```\n"
            "```\nfrom m import h, cache\n```",
            "@cache\ndef g(x):\n    return h(x)\n\nfrom m import h, cache\n\ndef f(x):\n    return g(x)",
        ),
        (
            "```\nK = 1\n```\n```\nfrom __future__ import annotations\ndef f(x):\n    return K\n```",
            "from __future__ import annotations\ndef f(x):\n    return K\n\nK = 1",
        ),
        # cut off, or gone on
        ("```python\ndef f(x):\n    y = x\n    return y +", "def f(x):\n    y = x"),
        ("```python\ndef f(x):\n    return x\n\nprint(f(", F),
        ("```python\ndef f(x):\n    for y in x:\n        if y:", None),
        ('```python\ndef f(x):\n    """Cut', None),
        (f"{F}\nThis function returns x.\nIt's simple.", F),
        ("```python\ndef f(x):\n    t = {\n        1: 2,\n        3:\n", None),
    ],
)
def test_the_code_of_an_answer(answer: str, source: str | None) -> None:
    assert read(answer, "f") == source


def test_no_warning_of_a_programs_own_is_heard(recwarn: pytest.WarningsRecorder) -> None:
    assert read("def f(x):\n    return x is 1 or '\\d'", "f")
    assert not recwarn.list


def _longest_by_lines(text: str) -> str | None:
    """The longest run of lines from the top that parses, by trying all of them."""
    lines = text.split("\n")
    while lines:
        source = "\n".join(lines).rstrip()
        try:
            body = ast.parse(source).body
        except SyntaxError:
            lines.pop()
            continue
        defined = any(isinstance(part, ast.FunctionDef) and part.name == "f" for part in body)
        return source if defined else None
    return None


PROGRAM = '''import re
from math import (
    sqrt,
)

LIMITS = {
    "a": [1, 2],
    "b": (3,),
}

@property
def helper(x, y=[
    1,
]):
    """Text with ``code``
    and lines.
    """
    return f"{x!r:>{y}}" if x else \\
        [y for y in x
         if y]

def f(x):
    try:
        with open(x) as file, \\
                open(x):
            return helper(x)
    except (ValueError,
            TypeError) as error:
        raise error from None
    else:
        match x:
            case [1, *_]:
                pass
    finally:
        print("""a
b""")

class C:
    v: int = 1
    def g(self): return lambda: (yield)
'''


def test_what_was_cut_off_anywhere_is_read_as_if_all_ends_were_tried() -> None:
    draw = random.Random(0)
    for end in range(len(PROGRAM)):
        tail = draw.choice(["", "\nAnd so on, it's done.", "\n)", "\n```", "\n    return", "\n'''"])
        cut = PROGRAM[:end] + tail
        expected = _longest_by_lines(cut.partition("```")[0])
        assert read(f"```python\n{cut}", "f") == expected, cut[-80:]


SLOW: dict[str, Callable[[int], str]] = {
    "a fence and spaces": lambda n: "```" + " " * (5 * n),
    "open brackets": lambda n: "def f(x):\n    return " + "(" * n,
    "open brackets, one a line": lambda n: "def f(x):\n" + "(\n" * n,
    "decorators": lambda n: "@a\n" * n,
    "backslashes": lambda n: "x = \\\n" + "\\\n" * n,
    "fences": lambda n: "```\n" * n,
    "fences and docstrings": lambda n: '```\nx = """\n' * n,
    "code and prose": lambda n: "x = 1\nthis is prose\n" * n,
    "code and prose in a block": lambda n: "```\n" + "x = 1\nthis is prose\n" * n,
    "docstrings": lambda n: "def f(x):\n" + '"""\n' * n,
    "names": lambda n: "x:" + " " * (5 * n) + "y",
    "definitions": lambda n: "def f(x):\n    pass\n" * n,
    "helpers of helpers": lambda n: (
        "```\n" + "\n".join(f"a{i} = a{i + 1}" for i in range(n)) + "\n```\n```\ndef f(x):\n    return a0\n```"
    ),
    "operators": lambda n: "x = " + "not " * n + "1",
    "levels": lambda n: "\n".join(" " * i + "if x:" for i in range(min(n, 300))) + "\nx" * n,
}


@pytest.mark.parametrize("kind", SLOW)
def test_reading_takes_time_in_proportion_to_the_length(kind: str) -> None:
    def seconds(size: int) -> float:
        text, start = SLOW[kind](size), time.process_time()
        read(text, "f")
        return time.process_time() - start

    few = min(seconds(1000) for _ in range(3))
    assert min(seconds(8000) for _ in range(2)) < 30 * few + 0.1  # eight times as long: 64 times if quadratic
