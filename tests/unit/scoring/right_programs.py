"""Programs that are right: each defines ``f`` with f(x) = x + 10. Together they use what answers to benchmarks use."""

# What works in all walls.
ANYWHERE = {
    "a function": "def f(x):\n    return x + 10",
    "a lambda": "f = lambda x: x + 10",
    "a method of a class Solution": "class Solution:\n    def f(self, x):\n        return x + 10",
    "postponed annotations": "from __future__ import annotations\ndef f(x: int | Nothing) -> int:\n    return x + 10",
    "a dataclass with postponed annotations": """
from __future__ import annotations
from dataclasses import dataclass, field
@dataclass(order=True, frozen=True, slots=True)
class P:
    v: int
    more: list[int] = field(default_factory=list)
def f(x):
    return P(x).v + 10
""",
    "a named tuple and an enumeration": """
from enum import Enum, IntFlag, auto
from typing import NamedTuple
class P(NamedTuple):
    v: int
class S(Enum):
    TEN = 10
class F(IntFlag):
    A = auto()
def f(x):
    return P(x).v + S.TEN.value
""",
    "prints, and a script below": """
print("start")
def f(x):
    print("x is", x, "α")
    return x + 10
print("end")
if __name__ == "__main__":
    import sys
    sys.exit(f(int(input())))
""",
    "prints much": "def f(x):\n    print('a' * 50_000_000)\n    return x + 10",
    "its own tests, which are wrong": """
def f(x):
    return x + 10

assert f(1) == 3

def check():
    assert f(2) == 3

check()
""",
    "deep recursion": """
import sys
sys.setrecursionlimit(20000)
def g(n):
    return 0 if n == 0 else 1 + g(n - 1)
def f(x):
    return x + 10 + g(9000) - 9000
""",
    "threads": """
import queue, threading
def f(x):
    done = queue.Queue()
    lock = threading.Lock()
    def add(n):
        with lock: done.put(n)
    threads = [threading.Thread(target=add, args=(n,)) for n in (x, 10)]
    for t in threads: t.start()
    for t in threads: t.join()
    return done.get() + done.get()
""",
    "a pool of threads": """
from concurrent.futures import ThreadPoolExecutor
def f(x):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda v: v + 10, [x] * 20))[0]
""",
    "asyncio": """
import asyncio
async def g(x):
    await asyncio.sleep(0.01)
    return x + 10
def f(x):
    return asyncio.run(g(x))
""",
    "a short sleep": "import time\ndef f(x):\n    time.sleep(0.2)\n    return x + 10",
    "an alarm": """
import signal
def f(x):
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(10))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
    return x + rung[0]
""",
    "chance and names": """
import random, secrets, uuid
def f(x):
    random.seed(3)
    assert random.random() and secrets.token_hex(4) and uuid.uuid4()
    return x + 10
""",
    "numbers": """
import cmath, decimal, fractions, math, statistics
def f(x):
    assert math.isqrt(10) == 3 and cmath.sqrt(-1) == 1j and statistics.mean([1, 3]) == 2
    return int(decimal.Decimal(x) + fractions.Fraction(10).numerator)
""",
    "texts": """
import calendar, csv, datetime, difflib, html, io, json, locale, pprint, re, string, textwrap, unicodedata
def f(x):
    assert list(csv.reader(io.StringIO('a,b'))) == [['a', 'b']] and unicodedata.name('α') and calendar.isleap(2000)
    assert textwrap.fill('a b') and pprint.pformat({}) and html.escape('<') and difflib.get_close_matches('a', ['a'])
    assert datetime.date(2024, 1, 1) + datetime.timedelta(1) and locale.localeconv() and string.ascii_letters
    return json.loads(json.dumps({'v': int(re.sub(r'\\D', '', f'{x}.'))}))['v'] + 10
""",
    "containers": """
import array, bisect, collections, copy, functools, heapq, itertools, operator, pickle, types
@functools.lru_cache(None)
def g(n):
    return n if n < 2 else g(n - 1) + g(n - 2)
def f(x):
    held = collections.OrderedDict(a=collections.Counter('ab'), b=collections.deque([x]))
    assert copy.deepcopy(held) == pickle.loads(pickle.dumps(held)) and types.SimpleNamespace(a=1).a
    heap = [3, 1]
    heapq.heapify(heap)
    assert bisect.bisect([1, 2], 1) and list(itertools.accumulate([1, 2])) == [1, 3] and array.array('i', heap)
    return functools.reduce(operator.add, [x, g(5), g(5)])
""",
    "coding": """
import base64, binascii, gzip, hashlib, hmac, struct, zlib
def f(x):
    assert hashlib.md5(b'x').hexdigest() and hmac.new(b'k', b'm', 'sha256').digest() and base64.b64encode(b'x')
    assert binascii.hexlify(gzip.compress(b'')).startswith(b'1f8b')
    return struct.unpack('>i', zlib.decompress(zlib.compress(struct.pack('>i', x + 10))))[0]
""",
    "looking at itself": """
import contextlib, gc, inspect, io, logging, sys, traceback, warnings, weakref
def f(x):
    logging.getLogger('f').warning('heard by nobody')
    with contextlib.redirect_stdout(io.StringIO()) as said:
        print(x)
    warnings.warn('nor this')
    try: 1 / 0
    except ZeroDivisionError: assert traceback.format_exc()
    gc.collect()
    assert list(inspect.signature(f).parameters) == ['x'] and sys.getsizeof(x) and weakref.ref(f)() is f
    return int(said.getvalue()) + 10
""",
    "its process": """
import os, platform, resource, sys, time
def f(x):
    assert os.getpid() and os.cpu_count() and os.getcwd() and os.urandom(4) and time.time() and time.strftime('%Y')
    assert resource.getrlimit(resource.RLIMIT_AS)[0] > 0 and platform.system() == 'Linux' and os.stat('.')
    assert os.environ.get('HOME') is None and sys.stdin.read() == ''
    return x + 10
""",
    "what HumanEval's guard does": """
import faulthandler, os, resource
def f(x):
    resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
    faulthandler.disable()
    os.environ['OMP_NUM_THREADS'] = '1'
    return x + 10
""",
}
# What needs a folder of its own.
WITH_A_FOLDER = {
    "files for a time": """
import os, tempfile
def f(x):
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile('w+') as t:
        with open(os.path.join(folder, 'a'), 'w') as file: file.write('a')
        os.rename(os.path.join(folder, 'a'), os.path.join(folder, 'b'))
        assert os.listdir(folder) == ['b']
        t.write(str(x + 10))
        t.seek(0)
        return int(t.read())
""",
    "a file": """
import pathlib, sys
sys.stdin = open('/dev/null')
def f(x):
    pathlib.Path('a').write_text(str(x))
    with open('a', 'a') as file: file.write('0')
    with open('a') as file: value = int(file.read()) // 10 + 10
    pathlib.Path('a').unlink()
    return value
""",
}
# What needs processes of its own.
WITH_PROCESSES = {
    "a process": """
import os
def f(x):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, bytes([x + 10]))
        os._exit(0)
    os.wait()
    return os.read(reading, 1)[0]
""",
    "a pool of processes": """
from multiprocessing import Pool
def g(x):
    return x + 10
def f(x):
    with Pool(2) as pool:
        return pool.map(g, [x])[0]
""",
}
RIGHT = ANYWHERE | WITH_A_FOLDER | WITH_PROCESSES
