"""What hypothesis makes of good files, and what every reader owes whoever wrote them: a value or one sentence, soon.

How many files are made for each reader is set by SELFADAPT_FUZZ.
"""

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from pipeline.core.errors import UserError

EXAMPLES = int(os.environ.get("SELFADAPT_FUZZ", "60"))
SECONDS = 2.0  # of CPU time, for one file
MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # a file that is at fault is short already
)

HOSTILE = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**31,
    2**63,
    -(2**64),
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
]
HOSTILE += [
    "",
    " ",
    "x",
    "0",
    "nan",
    "..",
    "/etc/passwd",
    "a\nb",
    "\0",
    "\ud800",
    "é" * 300,
    "{a}",
    "${x}",
    "@",
    "sums",
]
HOSTILE += [
    float("inf"),
    [],
    [[]],
    {},
    {"": 1},
    {"a": {}},
    ["x", 1],
    [None],
    [[1, 2], [3]],
    [1e400, -1e400],
    list(range(40)),
]
values = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.lists(st.sampled_from(HOSTILE), max_size=3),
    st.dictionaries(st.text(max_size=4), st.sampled_from(HOSTILE), max_size=3),
)
PIECES = [*"[]{}:,-?&*!|>%@#'\"\\\n\t 019.eE", "&a", "*a", "<<", "!!", "~", ": ", "\n  ", "é", "\0", "\ufeff", "\u2028"]
PIECES += ["null", "true", "NaN", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000, "\\ud800", "<<<<<<< ours\n", "\r\n"]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.lists(st.sampled_from(PIECES), max_size=4)),
    min_size=1,
    max_size=4,
)


def edited(text: str, changes: list[tuple[float, int, list[str]]]) -> str:
    """A text with some of it cut out, and pieces in its place. changes: (where, of 0 to 1; how much; pieces)."""
    for where, count, pieces in changes:
        place = int(where * len(text))
        text = text[:place] + "".join(pieces) + text[place + count :]
    return text


def written(text: str) -> bytes:
    """A text as bytes, whatever it holds."""
    return text.encode("utf-8", "surrogatepass")


bytes_ = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=4)


def damaged(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Bytes with some of them cut out, and others in their place."""
    for where, count, others in changes:
        place = int(where * len(data))
        data = data[:place] + others + data[place + count :]
    return data


# Changes of a value of JSON or YAML: which part (counted in its order), and what happens to it.
CHANGES = ("replace", "remove", "rename", "add")
changes = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(CHANGES), values), min_size=1, max_size=3)


def changed(value: Any, made: list[tuple[int, str, Any]]) -> Any:
    """A copy of a value with some of its parts replaced, removed or under another name."""
    value = copy.deepcopy(value)
    for number, what, new in made:
        places = list(_places(value))
        if not places:
            return new
        holder, key = places[number % len(places)]
        new = copy.deepcopy(new)  # the same one may be drawn twice, and would come to hold itself
        if what == "replace":
            holder[key] = new
        elif what == "add" and isinstance(holder, dict):
            holder[str(new)] = new
        elif what == "add":
            holder.append(new)
        else:
            part = holder.pop(key)
            if what == "rename" and isinstance(holder, dict):
                holder[str(new)] = part
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a value, as what holds it and its key or place there."""
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(held):
        yield value, key
        yield from _places(part)


def as_json(value: Any) -> str:
    """JSON, or what Python takes for it: NaN, and numbers of any length."""
    import sys

    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value)
    finally:
        sys.set_int_max_str_digits(digits)


def only_a_sentence(read: Callable[..., Any], *given: Any, errors: type[Exception] = UserError) -> Any:
    """What a reader gives, or None if it raises one sentence. All else is a fault, and so is to take long."""
    start = time.process_time()
    value = None
    try:
        value = read(*given)
    except errors as error:
        said = str(error)
        assert "\n" not in said and len(said) < 2000, said
    assert time.process_time() - start < SECONDS
    return value
