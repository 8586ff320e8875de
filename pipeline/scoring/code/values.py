"""Python values as JSON that keeps their types, and back: how arguments and results cross the sandbox's walls.

Used on both sides: by ``sandbox`` and inside it. Standard library only.

Numbers, texts and None stand for themselves; everything else is ``[type, items...]``. What is equal to a list,
tuple, set, dict, number or text (a Counter, a named tuple, an enumeration) crosses as that. A value of more than
``LARGE`` characters crosses as its digest, which tells whether it is the one expected and nothing else; one of more
than ``MOST`` items does not cross.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGE = 1 << 16
MOST = 1 << 20  # items of a value, all levels together: writing more down would take longer than any call may
WRITTEN = 1 << 63  # larger whole numbers are written in hexadecimal: Python reads no more than 4300 decimal digits
_HOLDERS = (list, tuple, set, frozenset, dict)


@dataclass(frozen=True)
class Digest:
    """What stands for a large value. Equal values, 1 and 1.0 among them, have equal ones."""

    sha256: str


def line(value: Any) -> str:
    """``value`` as one line of JSON. Raises TypeError for what is no plain data, OverflowError for too much of it."""
    _bounded(value)
    text = json.dumps(plain(value))
    if len(text) <= LARGE:
        return text
    whole = json.dumps(_whole(plain(value)))
    return json.dumps(["digest", hashlib.sha256(whole.encode()).hexdigest()])


def _bounded(value: Any) -> None:
    left, waiting = MOST, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, _HOLDERS):
            left -= len(one)
            if left < 0:
                raise OverflowError(f"a value of more than {MOST} items")
            items = one.items() if isinstance(one, dict) else one
            waiting.extend(item for item in items if isinstance(item, _HOLDERS))


def _whole(value: Any) -> Any:
    """JSON in which floats that are whole numbers are whole numbers, and so is True."""
    if type(value) is float:
        return int(value) if value.is_integer() else value
    if type(value) is list:
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()) else value


def plain(value: Any) -> Any:
    """``value`` as JSON. Raises TypeError for what is no plain data."""
    if type(value) is float and math.isfinite(value):  # first, since a large value is most often of numbers
        return value
    if value is None or isinstance(value, (bool, str)):  # no "bool | str": making that type costs more than asking
        return value
    if isinstance(value, int):
        return value if -WRITTEN < value < WRITTEN else ["int", hex(value)]
    if isinstance(value, Digest):
        return ["digest", value.sha256]
    if isinstance(value, float):
        return value if math.isfinite(value) else ["float", float.__repr__(value)]
    if isinstance(value, complex):
        return ["complex", repr(value.real), repr(value.imag)]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.decode("latin-1")]
    for kind in (list, tuple):
        if isinstance(value, kind):
            return [kind.__name__, *map(plain, value)]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(map(plain, value), key=repr)]
    if isinstance(value, dict):
        return ["dict", *([plain(key), plain(item)] for key, item in value.items())]
    raise TypeError(f"a {type(value).__name__} is no plain value")


def native(value: Any) -> Any:
    """The value that ``plain`` made JSON of. Raises ValueError for all other JSON, whatever its form."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list that begins with a type, got {str(value)[:80]}")
    kind, *items = value
    try:
        if kind in ("list", "tuple", "set"):
            whole = [native(item) for item in items]
            return tuple(whole) if kind == "tuple" else set(whole) if kind == "set" else whole
        if kind == "dict":
            return {native(key): native(item) for key, item in items}
        return _OF_TEXTS[kind](*map(_text, items))
    except (TypeError, KeyError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"expected a {str(kind)[:80]}, got another form: {type(error).__name__}") from None


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    raise ValueError(f"expected a text, got {str(item)[:80]}")


# The types that are written as texts, and how they are read.
_OF_TEXTS: dict[Any, Callable[..., Any]] = {
    "digest": lambda text: Digest(text),
    "int": lambda text: int(text, 16),
    "float": lambda text: float(text),
    "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
    "bytes": lambda text: text.encode("latin-1"),
}
