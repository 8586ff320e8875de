"""Programs that want more than they may have: time, memory, processes, files, output. None may pass for a right one.

Each defines ``f``, which the tests call with 1 and 2, for 11 and 12. Those that return them do so only after they have
had what they wanted.
"""

CPU_TIME = {
    "loops for ever": "while True: pass\ndef f(x):\n    return 0",
    "loops in the call": "def f(x):\n    while True: pass",
    "loops, and ignores signals": """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x):
    while True: pass
""",
    "loops with signals blocked": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
def f(x):
    while True: pass
""",
    "sets the clocks back": """
import signal, time
for number in (signal.SIGXCPU, signal.SIGPROF, signal.SIGALRM, signal.SIGVTALRM): signal.signal(number, signal.SIG_IGN)
def f(x):
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, .01, .01)
    end = time.process_time() + 30
    while time.process_time() < end: pass
    return x + 10
""",
    "catches that it is late, and goes on": """
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
    "is stormed by timers": """
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
def f(x):
    while True: pass
""",
    "searches with a regex for ever": "import re\ndef f(x):\n    return re.match('(a+)+$', 'a' * 60 + 'b')",
    "computes in C for ever": "def f(x):\n    return sum(range(10 ** 13))",
    "multiplies for ever": "def f(x):\n    return (7 ** 3_000_000) ** 20 % 10",
    "lets its threads loop": """
import threading
def burn():
    while True: pass
def f(x):
    for _ in range(4): threading.Thread(target=burn).start()
    return 0
""",
    "loops when it is collected": """
class Slow:
    def __del__(self):
        while True: pass
def f(x):
    Slow()
    return x + 10
""",
    "compiles for ever": "def f(x):\n    while True: compile('x = ' + 'f(' * 80 + ')' * 80, '', 'exec')",
}

SLEEP = {
    "sleeps before": "import time\ntime.sleep(60)\ndef f(x):\n    return x + 10",
    "sleeps in the call": "import time\ndef f(x):\n    time.sleep(60)\n    return x + 10",
    "waits for itself": "import threading\ndef f(x):\n    a = threading.Lock()\n    a.acquire()\n    a.acquire()",
    "waits for a signal that never comes": "import signal\ndef f(x):\n    signal.sigwait([10])\n    return x + 10",
    "waits at its own pipe": "import os\ndef f(x):\n    return len(os.read(os.pipe()[0], 1))",
    "waits for no file": "import select\ndef f(x):\n    select.select([], [], [])\n    return x + 10",
    "waits for a thread that sleeps": """
import threading, time
def f(x):
    sleeper = threading.Thread(target=time.sleep, args=(60,))
    sleeper.start()
    sleeper.join()
    return x + 10
""",
    "stops itself": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    return 0",
    "stops, by a child, whatever there is": """
import os, signal, time
def f(x):
    if os.fork() == 0:
        os.kill(1, signal.SIGSTOP)
        time.sleep(60)
    time.sleep(60)
    return x + 10
""",
    "drips": r"""
import os, time
def f(x):
    while True:
        os.write(3, b' ')
        time.sleep(.001)
""",
    "lets children burn time": """
import os, time
def f(x):
    for _ in range(40):
        children = []
        for _ in range(6):
            child = os.fork()
            if child == 0:
                end = time.process_time() + .9
                while time.process_time() < end: pass
                os._exit(0)
            children.append(child)
        for child in children: os.waitpid(child, 0)
    return x + 10
""",
}

MEMORY = {
    "asks for 4 GB": "x = 'a' * (1 << 32)\ndef f(x):\n    return 0",
    "fills memory": "x = []\nwhile True: x.append('a' * (1 << 20))\ndef f(x):\n    return 0",
    "fills memory in the call": "def f(x):\n    held = []\n    while True: held.append(bytearray(1 << 22))",
    "maps memory": """
import mmap
def f(x):
    held = []
    for _ in range(10000):
        held.append(mmap.mmap(-1, 1 << 26))
        held[-1][:] = b'x' * (1 << 26)
    return x + 10
""",
    "shares memory between processes": """
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
    "recurses for ever": "def f(x):\n    return f(x)",
    "recurses until the stack ends": """
import sys
sys.setrecursionlimit(10 ** 9)
class Deep:
    def __repr__(self): return repr(self)
def f(x):
    return repr(Deep())
""",
    "crashes the interpreter": "import ctypes\nctypes.string_at(0)\ndef f(x):\n    return 0",
    "aborts": "import os\ndef f(x):\n    os.abort()",
    "grows a number": "def f(x):\n    n = 3\n    while True: n = n * n",
}

PROCESSES = {
    "bombs with forks": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\ndef f(x):\n    return 0",
    "bombs with forks that leave": """
import os
def f(x):
    for _ in range(10 ** 6):
        child = os.fork()
        if child: os._exit(0)
    return x + 10
""",
    "bombs with threads": """
import threading, time
def f(x):
    for _ in range(10000):
        threading.Thread(target=time.sleep, args=(60,)).start()
    return x + 10
""",
    "bombs with small threads": """
import threading, time
threading.stack_size(1 << 15)
def f(x):
    for _ in range(10 ** 6):
        threading.Thread(target=time.sleep, args=(60,)).start()
    return x + 10
""",
    "leaves the dead": """
import os
def f(x):
    for _ in range(1000):
        if os.fork() == 0: os._exit(0)
    return x + 10
""",
    "daemonises": """
import os, signal, time
def f(x):
    if os.fork() == 0:
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.close(3)
            time.sleep(60)
        os._exit(0)
    return 0
""",
    "hides behind sessions": """
import os, time
def f(x):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.closerange(0, 64)
                end = time.time() + 20
                while time.time() < end:
                    if os.fork(): os._exit(0)
                    os.setsid()
            os._exit(0)
    os.setsid()
    return x + 10
""",
    "kills its parent and everything": """
import os, signal
def f(x):
    killed = []
    for process in (os.getppid(), -1, 0):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            try:
                os.kill(process, number)
                killed.append(process)
            except OSError: pass
    return killed
""",
    "runs another program": """
import os
def f(x):
    for path in ('/bin/sh', '/usr/bin/python3', '/lib/../bin/sh'):
        try: os.execv(path, [path, '-c', 'echo passed'])
        except OSError: pass
    return 0
""",
    "runs another program by a child": """
import subprocess
def f(x):
    return subprocess.run(['/bin/sh', '-c', 'exit 0']).returncode + x + 10
""",
}

FILES = {
    "floods its output": "def f(x):\n    return 'a' * 10_000_000",
    "floods its channel": "import os\ndef f(x):\n    while True: os.write(3, b'a' * (1 << 16))",
    "floods stdout": "while True: print('a' * 100_000)\ndef f(x):\n    return 0",
    "fills the disk": """
def f(x):
    for number in range(100000):
        with open(str(number), 'wb') as file: file.write(bytes(1 << 19))
    return x + 10
""",
    "fills a file": "def f(x):\n    with open('large', 'wb') as file: file.write(bytes(1 << 28))\n    return x + 10",
    "makes files without end": "def f(x):\n    for i in range(10**6): open(str(i), 'w').close()\n    return x + 10",
    "makes folders without end": """
import os
def f(x):
    for _ in range(10 ** 5):
        os.mkdir('deep')
        os.chdir('deep')
    return x + 10
""",
    "opens files without end": "import os\ndef f(x):\n    return [os.open('/dev/null', 0) for _ in range(99999)] and 0",
    "fills the shared memory of semaphores": """
def f(x):
    for number in range(1000):
        with open(f'/dev/shm/{number}', 'wb') as file: file.write(bytes(1 << 16))
    return x + 10
""",
    "raises its limits": """
import resource
def f(x):
    for what in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
        resource.setrlimit(what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return x + 10
""",
}
