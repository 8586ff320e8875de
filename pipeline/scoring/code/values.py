"""Python values as JSON that keeps their types, and back: how arguments and results cross the sandbox's walls.

Used on both sides: by ``sandbox`` and, as a script's module, by ``worker``. Standard library only.

Numbers, texts and None stand for themselves; everything else is ``[type, items...]``. What is equal to a list,
tuple, set, dict, number or text (a Counter, a named tuple, an enumeration) crosses as that.
"""

import math


def plain(value):
    """``value`` as JSON. Raises TypeError for what is no plain data."""
    if value is None or isinstance(value, int | str):
        return value
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
    if kind == "float":
        return float(items[0])
    if kind == "complex":
        return complex(float(items[0]), float(items[1]))
    if kind == "bytes":
        return items[0].encode("latin-1")
    if kind == "dict":
        return {native(key): native(item) for key, item in items}
    return {"list": list, "tuple": tuple, "set": set}[kind](map(native, items))
