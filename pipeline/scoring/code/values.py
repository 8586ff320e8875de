"""Python values as JSON that keeps their types, and back: how arguments and results cross the sandbox's walls.

Used on both sides: by ``sandbox`` and, as a script's module, by ``worker``. Standard library only.

Numbers, texts and None stand for themselves; everything else is ``[type, items...]``. What is equal to a list,
tuple, set, dict, number or text (a Counter, a named tuple, an enumeration) crosses as that. A value of more than
``LARGE`` characters crosses as its digest, which tells whether it is the one expected and nothing else.
"""

import hashlib
import json
import math
from dataclasses import dataclass

LARGE = 1 << 16
WRITTEN = 1 << 63  # larger whole numbers are written in hexadecimal: Python reads no more than 4300 decimal digits


@dataclass(frozen=True)
class Digest:
    """What stands for a large value. Equal values, 1 and 1.0 among them, have equal ones."""

    sha256: str


def line(value):
    """``value`` as one line of JSON."""
    text = json.dumps(plain(value))
    if len(text) <= LARGE:
        return text
    whole = json.dumps(_whole(plain(value)))
    return json.dumps(["digest", hashlib.sha256(whole.encode()).hexdigest()])


def _whole(value):
    """JSON in which floats that are whole numbers are whole numbers, and so is True."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()) else value


def plain(value):
    """``value`` as JSON. Raises TypeError for what is no plain data."""
    if value is None or isinstance(value, bool | str):
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


def native(value):
    """The value that ``plain`` made JSON of. Raises ValueError, TypeError, KeyError or IndexError for other JSON."""
    if not isinstance(value, list):
        return value
    kind, *items = value
    if kind == "digest":
        return Digest(items[0])
    if kind == "int":
        return int(items[0], 16)
    if kind == "float":
        return float(items[0])
    if kind == "complex":
        return complex(float(items[0]), float(items[1]))
    if kind == "bytes":
        return items[0].encode("latin-1")
    if kind == "dict":
        return {native(key): native(item) for key, item in items}
    return {"list": list, "tuple": tuple, "set": set}[kind](map(native, items))
