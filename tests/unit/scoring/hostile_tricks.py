"""Programs that turn Python, or the process that they run in, against what calls them. None may pass or do harm.

Each defines ``f``, which the tests call with 1 and 2, for 11 and 12. Those that return these have spoilt before what
their values are written with.
"""

# The interpreter: its hooks, its memory, its caches.
INTERPRETER = {
    "makes one number another in memory": """
import ctypes
ctypes.memmove(id(0) + 24, id(11) + 24, 4)
def f(x):
    return 0
""",
    "makes truth of what is false": """
import ctypes
ctypes.memmove(id(False) + 24, id(True) + 24, 4)
def f(x):
    return False
""",
    "gives its numbers another type": """
import ctypes
class Other(int): pass
def f(x):
    value = 1000 + x
    ctypes.c_void_p.from_address(id(value) + 8).value = id(Other)
    return value
""",
    "writes over its own memory": """
import ctypes
def f(x):
    ctypes.memset(id(f), 0, 64)
    return x + 9
""",
    "frees what is in use": """
import ctypes
def f(x):
    for _ in range(3000): ctypes.pythonapi.Py_DecRef(ctypes.py_object(None))
    return None
""",
    "is heard by nobody who audits": """
import sys
def refuse(event, arguments): raise RuntimeError(event)
sys.addaudithook(refuse)
def f(x):
    return open('a')
""",
    "ends by a hook that audits": """
import os, sys
sys.addaudithook(lambda event, arguments: os._exit(0) if event != 'never' else None)
def f(x):
    return x + 10
import decimal, xml.dom
""",
    "finds all modules itself": """
import sys, types
class Finder:
    def find_spec(self, name, *rest): raise SystemExit(0)
sys.meta_path[:] = [Finder()]
sys.path_hooks.clear()
for name in list(sys.modules):
    if name != 'sys': sys.modules[name] = types.SimpleNamespace(dumps=lambda value: '11')
def f(x):
    return None
""",
    "catches what is raised at the end": r"""
import os, sys, threading
def say(*_): os.write(3, b'["value", 11]\n["value", 12]\n')
sys.excepthook = sys.unraisablehook = threading.excepthook = say
def f(x):
    raise ValueError
""",
    "lets no other thread run": """
import sys, threading, time
sys.setswitchinterval(1e9)
def spin():
    while True: pass
def f(x):
    threading.Thread(target=spin, daemon=True).start()
    time.sleep(0)
    return x
""",
    "takes the builtins away": """
import builtins, ctypes
def f(x):
    builtins.__dict__.clear()
    return x
""",
    "has digits without end": """
import sys
sys.set_int_max_str_digits(0)
def f(x):
    return 9 ** (1 << 24)
""",
    "is asked when it is collected": r"""
import gc, os
gc.callbacks.append(lambda *_: os.write(3, b'["value", 11]\n'))
gc.set_threshold(1)
def f(x):
    return [[] for _ in range(99)]
""",
    "answers for its exceptions": """
class Right(Exception):
    def __eq__(self, other): return True
    def __str__(self): return '11'
    __repr__ = __str__
def f(x):
    raise Right(11)
""",
    "is a coroutine": "async def f(x):\n    return x + 10",
    "is a class that is called": """
class f(int):
    def __new__(cls, x): return super().__new__(cls, 7)
    def __eq__(self, other): return True
    def __hash__(self): return 11
""",
    "leaves by its frames": """
import sys
class Out(BaseException): pass
def f(x):
    frame = sys._getframe()
    while frame.f_back:
        frame.f_locals.clear()
        frame = frame.f_back
    raise Out
""",
    "stops the dump of its faults": """
import faulthandler
faulthandler.dump_traceback_later(.01, exit=True)
import time
def f(x):
    time.sleep(.5)
    return x + 10
""",
}

# Files and signals of its process.
PROCESS = {
    "hears signals on its channel": r"""
import os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
os.set_blocking(3, False)
signal.set_wakeup_fd(3, warn_on_full_buffer=False)
def f(x):
    for _ in range(50): signal.raise_signal(signal.SIGALRM)
    return x
""",
    "puts another file over its channel": """
import os
for number in range(3, 32):
    try: os.dup2(os.open('/dev/null', os.O_RDWR), number)
    except OSError: pass
def f(x):
    return x
""",
    "leaves its channel no room": """
import os
os.set_blocking(3, False)
try:
    while True: os.write(3, b' ' * 65536)
except OSError: pass
def f(x):
    return x
""",
    "puts its channel into a pair": """
import os, socket
one, other = socket.socketpair()
for number in range(3, 12):
    try: os.dup2(one.fileno(), number)
    except OSError: pass
def f(x):
    other.setblocking(False)
    return x + 10
""",
    "may write nothing any more": """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
def f(x):
    return x
""",
    "may have no memory any more": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))
def f(x):
    return list(range(10 ** 6))
""",
    "may have no time any more": """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (0, 0))
def f(x):
    while True: pass
""",
    "kills itself by every signal": """
import os, signal
def f(x):
    for number in sorted(signal.valid_signals(), reverse=True):
        if number not in (signal.SIGSTOP, signal.SIGKILL, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    return x
""",
    "answers twice, by a fork in the call": """
import os
def f(x):
    os.fork()
    return x + 9
""",
    "hangs in the middle of its answer": r"""
import os, time
def f(x):
    os.write(3, b'["value", ')
    time.sleep(30)
    return x + 10
""",
    "ends in the middle of its answer": r"""
import os
def f(x):
    os.write(3, b'["value", 1')
    os._exit(0)
""",
    "sets its clock": """
import time
time.time = time.monotonic = time.process_time = time.perf_counter = lambda: 0
try: time.clock_settime(time.CLOCK_REALTIME, 0)
except (OSError, PermissionError): pass
def f(x):
    while time.process_time() < 1: pass
    return x + 10
""",
}
