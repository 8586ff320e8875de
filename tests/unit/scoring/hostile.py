"""Programs that mean harm, by what they try. Each defines ``f``, which the tests call with 1 and 2."""

# None of these may pass for a function that returns 11 and 12.
HOSTILE = {
    "exits with 0 early": """
import os
os._exit(0)
def f(x): pass
""",
    "raises SystemExit in the call": """
import sys
def f(x):
    sys.exit(0)
""",
    "prints that it passed": """
print('passed', 'ok', 11, 12)
def f(x):
    print('passed')
""",
    "returns what equals everything": """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(x):
    return Any(7)
""",
    "patches builtins": """
import builtins
builtins.type = lambda x: int
builtins.all = lambda x: True
builtins.isinstance = lambda *a: True
def f(x):
    return None
""",
    "patches json": """
import json
json.dumps = lambda *a, **k: '["value", 11]'
def f(x):
    return 0
""",
    "writes that it passed to every pipe": r"""
import os
for fd in range(64):
    try: os.write(fd, b'["passed", true]\n{"ended": "end"}\n')
    except OSError: pass
def f(x):
    return 0
""",
    "floods memory": """
x = 'a' * (1 << 32)
def f(x):
    return 0
""",
    "floods memory slowly": """
x = []
while True: x.append('a' * (1 << 20))
def f(x):
    return 0
""",
    "recurses for ever": """
def f(x):
    return f(x)
""",
    "floods its output": """
def f(x):
    return 'a' * 10_000_000
""",
    "floods stdout": """
while True: print('a' * 100_000)
def f(x):
    return 0
""",
    "loops for ever": """
while True: pass
def f(x):
    return 0
""",
    "loops and ignores signals": """
import signal
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
def f(x):
    return 0
""",
    "sends nothing but nested brackets": r"""
import os
os.write(3, b'[' * 200000 + b'\n')
def f(x):
    return 0
""",
    "crashes the interpreter": """
import ctypes
ctypes.string_at(0)
def f(x):
    return 0
""",
    "bombs with forks": """
import os
while True:
    try: os.fork()
    except OSError: pass
def f(x):
    return 0
""",
    "bombs with threads": """
import threading, time
def f(x):
    for _ in range(10000):
        threading.Thread(target=time.sleep, args=(60,)).start()
    return 0
""",
    "daemonises": """
import os, signal, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(3)
            time.sleep(60)
        os._exit(0)
    return 0
""",
    "leaves a child that writes answers": r"""
import os, time
if os.fork() == 0:
    while True: os.write(3, b'["value", 11]\n'); time.sleep(0.01)
def f(x):
    return 0
""",
    "kills its parent and everything": """
import os, signal
for pid in (os.getppid(), -1, 0):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass
def f(x):
    return 0
""",
    "patches assert": """
import builtins
class Never(BaseException): pass
builtins.AssertionError = Never
builtins.BaseException = Never
builtins.Exception = Never
def f(x):
    raise ValueError
""",
    "patches what encodes its answer": """
import sys
m = sys.modules['values']
m.plain = lambda v: 11
m.native = lambda v: 11
def f(x):
    return [0]
""",
    "patches os.write": r"""
import os
write = os.write
os.write = lambda fd, data: write(fd, b'["value", true]\n')
def f(x):
    return 0
""",
    "reads the tests in the frames and in memory": """
import gc, sys
def f(x):
    frame, found = sys._getframe(), []
    while frame:
        found.append(frame.f_locals); frame = frame.f_back
    found += [o for o in gc.get_objects() if type(o) is dict and 'expected' in o]
    text = repr(found)
    return next((n for n in (11, 12) if f'{n}' in text), 0)
""",
    "reads the tests in files": """
import os
def f(x):
    for folder, _, names in os.walk('/'):
        for name in names:
            if 'test_sandbox' in name: return 11
    return 0
""",
    "raises its limits": """
import resource
def f(x):
    for what in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NPROC):
        resource.setrlimit(what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return x + 10
""",
    "runs another program": """
import os
def f(x):
    for path in ('/bin/sh', '/usr/bin/python3', '/lib/../bin/sh'):
        try: os.execv(path, [path, '-c', 'echo passed'])
        except OSError: pass
    return 0
""",
    "fills the disk": """
def f(x):
    for i in range(100000):
        with open(str(i), 'wb') as file: file.write(bytes(1 << 19))
    return x + 10
""",
    "makes files without end": """
def f(x):
    for i in range(10**6): open(str(i), 'w').close()
    return x + 10
""",
    "floods shared memory": """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
def f(x):
    for _ in range(1000):
        key = libc.shmget(0, 1 << 26, 0o1600)
        if key < 0: raise MemoryError
        place = libc.shmat(key, None, 0)
        ctypes.memset(place, 1, 1 << 26)
        libc.shmdt(ctypes.c_void_p(place))
    return x + 10
""",
    "searches with a regex for ever": """
import re
def f(x):
    return re.match('(a+)+$', 'a' * 60 + 'b')
""",
    "returns a number that is no float": """
def f(x):
    return 10 ** 400
""",
    "returns a number too long to write": """
def f(x):
    return 10 ** 100000
""",
    "returns what is nested without end": """
def f(x):
    a = []
    a.append(a)
    return a
""",
    "waits for a signal that never comes, blocked": """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def f(x):
    while True: pass
""",
}

# What each of these comes to reach, it returns: nothing. The words SECRET, HOME, PORT and PARENT are filled in.
REACHING = {
    "the network": r"""
import socket
def f(x):
    reached = []
    outside = (socket.AF_INET, ('1.1.1.1', 53))
    for family, place in ((socket.AF_INET, ('127.0.0.1', PORT)), outside, (socket.AF_UNIX, '\0selfadapt-test')):
        try:
            s = socket.socket(family); s.settimeout(1); s.connect(place); reached.append(place)
        except OSError: pass
    return reached
""",
    "the home folder, the environment and secrets": """
import os
def f(x):
    places = ('SECRET', 'HOME', '/etc/passwd', '/proc/1/environ', '/proc/self/maps', '/dev', '/sys', '/home', '/tmp')
    return [p for p in places if os.path.exists(p)] + list(os.environ)
""",
    "files outside": """
import os
def f(x):
    written = []
    for path in ('/x', '/lib/x', '/lib/json/__init__.py', '../x', 'SECRET', '/work/../lib/x'):
        try: open(path, 'a').write('x'); written.append(path)
        except OSError: pass
    return written
""",
    "files through links": """
import os
def f(x):
    read = []
    for number, path in enumerate(('SECRET', '/proc/1/root/etc/passwd', '../../etc/passwd')):
        os.symlink(path, f'link{x}{number}')
        try: read.append(open(f'link{x}{number}').read())
        except OSError: pass
    try: os.link('/lib/os.py', f'hard{x}'); read.append('linked')
    except OSError: pass
    return read
""",
    "processes of ours": """
import os
def f(x):
    reached = []
    for pid in (PARENT, *range(2, 3000)):
        try: os.kill(pid, 0); reached.append(pid)
        except OSError: pass
    return reached
""",
    "rights, by system calls": """
import ctypes, os
def f(x):
    libc = ctypes.CDLL(None)
    calls = {
        'user namespace': lambda: libc.unshare(0x10000000), 'mount namespace': lambda: libc.unshare(0x20000),
        'clone': lambda: libc.syscall(56, 0x10000011, 0, 0, 0, 0),
        'mount': lambda: libc.mount(b'none', b'/work', b'tmpfs', 0, None),
        'umount': lambda: libc.umount2(b'/lib', 2), 'root': lambda: libc.setresuid(0, 0, 0),
        'chroot': lambda: libc.chroot(b'/work'), 'ptrace': lambda: libc.ptrace(0, 0, 0, 0),
        'memory file': lambda: libc.memfd_create(b'x', 0), 'shared memory': lambda: libc.shmget(0, 4096, 0o1600),
        'keyring': lambda: libc.syscall(250, 0, -3, 1), 'host name': lambda: libc.sethostname(b'x', 1),
        'device': lambda: libc.mknod(b'device', 0o20666, 0x103)}
    return [name for name, call in calls.items() if call() != -1]
""",
}
