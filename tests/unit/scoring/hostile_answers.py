"""Programs that try to pass for a function that returns 11 for 1 and 12 for 2, without computing it.

Each defines ``f``, which the tests call with 1 and 2. None of them may pass, raise in the scorer, or harm the next one.
"""

# What a program does to look right, whatever its function returns.
PRETENDING = {
    "exits with 0 early": "import os\nos._exit(0)\ndef f(x): pass",
    "raises SystemExit in the call": "import sys\ndef f(x):\n    sys.exit(0)",
    "raises KeyboardInterrupt in the call": "def f(x):\n    raise KeyboardInterrupt",
    "defines nothing": "f = None",
    "is no function": "f = 11",
    "deletes its function": "def f(x):\n    return 11\ndel f",
    "prints that it passed": "print('passed', 'ok', 11, 12)\ndef f(x):\n    print('passed')",
    "leaves by a generator": "def f(x):\n    yield x + 10",
    "patches builtins": """
import builtins
builtins.type = lambda x: int
builtins.all = builtins.isinstance = lambda *a: True
builtins.len = lambda x: 1
def f(x):
    return None
""",
    "patches json and what encodes its answer": """
import json, json.encoder, sys
json.dumps = lambda *a, **k: '["value", 11]'
json.JSONEncoder.encode = lambda self, value: '11'
json.encoder.c_make_encoder = None
for name, module in list(sys.modules.items()):
    for attribute in ('plain', 'native', 'line', '_whole'):
        if hasattr(module, attribute): setattr(module, attribute, lambda value: '11')
def f(x):
    return [0]
""",
    "patches math, struct and the codecs": """
import builtins, codecs, math, struct
struct.pack = lambda *a: b'\\0\\0\\0\\1'
math.isfinite = lambda v: True
codecs.encode = lambda *a: b'11'
builtins.map = lambda f, *a: iter([11])
builtins.sorted = lambda *a, **k: [11]
def f(x):
    return (0, 0)
""",
    "patches os.write": r"""
import os
write = os.write
os.write = lambda fd, data: write(fd, b'["value", true]\n')
def f(x):
    return 0
""",
    "patches the exceptions": """
import builtins
class Never(BaseException): pass
builtins.AssertionError = builtins.BaseException = builtins.Exception = Never
def f(x):
    raise ValueError
""",
    "rewrites the frame that calls it": """
import ctypes, sys
def f(x):
    frame = sys._getframe(1)
    frame.f_locals['encode'] = lambda value: '11'
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), 0)
    return 0
""",
    "traces what runs around it": """
import sys
def trace(frame, event, argument):
    if event == 'return': frame.f_locals['value'] = 11
    return trace
sys.settrace(trace)
sys.setprofile(trace)
def f(x):
    return 0
""",
    "calls the worker's own functions": """
import sys
main = sys.modules['__main__']
keepers = [m for m in list(sys.modules.values()) if hasattr(m, 'keep')]
for m in keepers:
    m.READY = b''
    m._watch = m.keep = lambda *a: ('end', b'["value", 11]')
def f(x):
    for m in keepers:
        m._send({'ended': 'end', 'cpu_seconds': 0.0}, b'["value", 11]\\n["value", 12]\\n')
    main.main()
    return 0
""",
    "empties the modules": "import sys\nsys.stdout = sys.stderr = None\nsys.modules.clear()\ndef f(x):\n    return 0",
    "is written in another encoding": "# -*- coding: utf-7 -*-\ndef f(x):\n    return 0",
    "says it late, at exit and when collected": r"""
import atexit, os, threading, time, weakref
def say(): os.write(3, b'["value", 12]\n')
atexit.register(say)
class Last:
    def __del__(self): say()
last = Last()
weakref.finalize(last, say)
def late():
    time.sleep(.2)
    say()
threading.Thread(target=late, daemon=True).start()
def f(x):
    return Last()
""",
    "lets a child say it": r"""
import os, time
if os.fork() == 0:
    while True:
        os.write(3, b'["value", 11]\n')
        time.sleep(.01)
def f(x):
    return 0
""",
    "leaves, and lets a child go on": r"""
import os, time
if os.fork():
    os._exit(0)
time.sleep(.3)
os.write(3, b'["value", 11]\n["value", 12]\n')
def f(x):
    return x + 10
""",
    "closes all files": "import os\nos.closerange(0, 64)\ndef f(x):\n    return x",
}

# Values that lie about themselves.
LYING = {
    "equals everything": """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(x):
    return Any(7)
""",
    "differs by nothing": """
class Near(float):
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __abs__(self): return 0.0
    def __eq__(self, other): return True
    def __repr__(self): return '11'
    def is_integer(self): return True
def f(x):
    return Near(3.5)
""",
    "writes two lines": r"""
class Two(int):
    def __repr__(self): return '11]\n["value", 12]\n'
    __str__ = __format__ = __repr__
    def __lt__(self, other): return True
    def __gt__(self, other): return True
def f(x):
    return Two(1)
""",
    "is of every type": """
class Meta(type):
    def __instancecheck__(cls, value): return True
    def __subclasscheck__(cls, other): return True
    def __eq__(cls, other): return True
    def __hash__(cls): return hash(int)
class Every(metaclass=Meta):
    __class__ = int
    def __reduce__(self): return (eval, ('11',))
def f(x):
    return Every()
""",
    "has another length each time": """
class Odd(list):
    def __len__(self): return 10 ** 18
    def __iter__(self): return iter([11] * 3)
def f(x):
    return Odd([1])
""",
    "has items that change": """
class Shifting(dict):
    def items(self):
        self[len(self)] = 0
        return super().items()
def f(x):
    return Shifting()
""",
    "raises when it is read": """
class Sharp(str):
    def __str__(self): raise MemoryError
    def __repr__(self): raise MemoryError
def f(x):
    return {Sharp('a'), Sharp('b'), 1, 2.5}
""",
    "is a number that is no float": "def f(x):\n    return 10 ** 400",
    "is a number too long to write": "def f(x):\n    return 10 ** 100000",
    "is a number of a billion digits": "def f(x):\n    return 1 << 3_500_000_000",
    "is a number of 100 kB": "def f(x):\n    return 1 << 800_000",
    "is nested without end": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "is nested deep": "def f(x):\n    a = 11\n    for _ in range(900): a = [a]\n    return a",
    "is not a number": "def f(x):\n    return float('nan')",
    "is a lone surrogate": "def f(x):\n    return '\\ud800\\udfff' * 20",
    "is a true boolean": "def f(x):\n    return True",
}

# Programs that look for the values expected. They are not in reach.
SEARCHING = {
    "looks into the frames and into memory": """
import gc, sys
def f(x):
    frame, held = sys._getframe(), []
    while frame:
        held.append(frame.f_locals)
        frame = frame.f_back
    held += [o for o in gc.get_objects() if type(o) is dict and 'expected' in o]
    text = repr(held)
    return next((n for n in (11, 12) if f'{n}' in text), 0)
""",
    "looks through the heap of the worker": """
import ctypes, gc
def f(x):
    gc.unfreeze()
    hits = 0
    for holder in gc.get_objects():
        for held in gc.get_referents(holder):
            hits += isinstance(held, bytes) and b'"expected"' in held or isinstance(held, str) and '"expected"' in held
    ctypes.string_at(id(f), 64)
    return 10 + x if hits > 10 ** 6 else 0
""",
    "looks for the tests in files": """
import os
def f(x):
    for folder, _, names in os.walk('/'):
        for name in names:
            if 'test_sandbox' in name: return 11
    return 0
""",
    "imports the project": """
import sys
def f(x):
    got = []
    for name in ('pipeline', 'selfadapt', 'torch', 'yaml', 'pydantic', 'pipeline.scoring.code.sandbox', 'tests'):
        try:
            __import__(name)
            got.append(name)
        except BaseException: pass
    return x + 10 if got else [sys.path, sys.argv]
""",
}

# What a program may write to the channel that values come back on, before its function is ever called.
WRITTEN = {
    "bytes that are no text": b'["value", ["bytes", 1]]',
    "bytes beyond latin-1": b'["value", ["bytes", "\\u0101"]]',
    "a float that is a number of 400 digits": b'["value", ["float", ' + b"9" * 400 + b"]]",
    "a float that is a list": b'["value", ["float", ["list"]]]',
    "a float of another word": b'["value", ["float", "much"]]',
    "a number of 5000 digits": b'["value", ' + b"9" * 5000 + b"]",
    "infinity": b'["value", Infinity]',
    "a number in no base": b'["value", ["int", "0xzz"]]',
    "a number that is a number": b'["value", ["int", 5]]',
    "a number of 100 kB": b'["value", ["int", "0x' + b"f" * 200_000 + b'"]]',
    "half a complex number": b'["value", ["complex", "1"]]',
    "a complex number of numbers": b'["value", ["complex", 1, 2]]',
    "a dict of nothing": b'["value", ["dict", 1]]',
    "a dict of half a pair": b'["value", ["dict", [1]]]',
    "a dict with a list for a key": b'["value", ["dict", [["list"], 1]]]',
    "a dict with a dict for a key": b'["value", ["dict", [["dict"], 1]]]',
    "a set of lists": b'["value", ["set", ["list", 1]]]',
    "a list without a type": b'["value", []]',
    "a list of no type": b'["value", [null]]',
    "a type that is a list": b'["value", [["list"], 1]]',
    "another type": b'["value", ["tuples", 1]]',
    "an object": b'["value", {"a": 1}]',
    "a digest of nothing": b'["value", ["digest"]]',
    "a digest of a list": b'["value", ["digest", ["list", 1]]]',
    "a value of three": b'["value", 11, 12]',
    "no value": b'["value"]',
    "another kind": b'["values", 11]',
    "a kind that is a list": b'[["value"], 11]',
    "a raise of a list": b'["raised", ["list"]]',
    "a text": b'"value"',
    "an object of a value": b'{"value": 11}',
    "nothing": b"",
    "no UTF-8": b'\xff\xfe["value", "\xed\xa0\x80"]',
    "UTF-16": '["value", 11]'.encode("utf-16"),
    "zero bytes": b"\0" * 1000,
    "lone surrogates": b'["value", "\\ud800"]',
    "lines that end otherwise": b'["value", 11]\r["value", 12]\x0b["value", 11]\x1c',
    "brackets of 200 000 levels": b"[" * 200_000,
    "lists of 3000 levels": b'["value", ' + b'["list",' * 3000 + b"1" + b"]" * 3000 + b"]",
    "objects of 20 000 levels": b'["value", ' + b'{"a":' * 20_000,
    "a line that does not end": b'["value", "' + b"a" * 240_000,
    "100 000 lines of nothing": b"\n" * 100_000,
    "the word that it is ready": b"ready\nready",
    "an answer of the worker": b'\0\0\0\x10{"ended": "end"}["value", 11]\n["value", 12]',
    "numbers that all have one hash": b'["value", ["set"'
    + b"".join(b", %d" % (number * (2**61 - 1)) for number in range(1, 2500))
    + b"]]",
}


def writes(line: bytes) -> str:
    """A right program, which writes a line to its channel before; and to every other file that it might have."""
    return f"""
import os
for file in range(3, 64):
    try:
        os.write(file, {line!r} + b'\\n')
    except OSError:
        pass
def f(x):
    return x + 10
"""
