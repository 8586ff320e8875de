"""The program that walls are tried with: a right one, which also tries what must not succeed. Inside the sandbox only.

Walls are chosen by what it shows: a right program must work in them (threads, a file, a module that is read only now),
and be held by them (no files outside, no sockets, no more processes than allowed).
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.scoring.code import values
from pipeline.scoring.code.walls import Walls

LIMITS = {
    "cpu_seconds": 5,
    "call_seconds": 5,
    "asleep_seconds": 10,
    "wall_seconds": 20,
    "memory_bytes": 256 << 20,
    "processes": 8,
    "file_bytes": 1 << 20,
    "output_bytes": 1 << 18,
}

SOURCE = """
import base64, colorsys, os, socket, tempfile, threading, time

def tried(action):
    try:
        return action()
    except OSError:
        return None

def thread():
    said = []
    started = threading.Thread(target=said.append, args=("said",))
    started.start()
    started.join()
    return said

def file():
    with tempfile.TemporaryFile("w+") as opened:
        opened.write("kept")
        opened.seek(0)
        return opened.read()

def written_outside():
    folder = "/var/tmp/selfadapt-trial"
    os.mkdir(folder)
    os.rmdir(folder)
    return "written"

def processes(most):
    started = 0
    while started <= most:
        try:
            child = os.fork()
        except OSError:
            break
        if child == 0:
            time.sleep(60)
            os._exit(0)
        started += 1
    return started

def f(most):
    return {
        "value": most + 10,
        "module": colorsys.__name__,
        "thread": tried(thread),
        "file": tried(file),
        "read outside": tried(lambda: len(open("/etc/passwd").read())),
        "written outside": tried(written_outside),
        "socket": tried(lambda: socket.socket().fileno()),
        "processes": processes(most),
    }
"""

REQUEST = {
    "before": "",
    "source": SOURCE,
    "after": "",
    "function": "f",
    "calls": [["list", LIMITS["processes"]]],
    "limits": LIMITS,
}


def fault(walls: Walls, landlock: int, head: Mapping[str, Any], output: bytes) -> str:
    """What the trial shows to be wrong with some walls; empty if nothing is. head, output: as ``keeper.keep`` gives."""
    got: Any = None
    with contextlib.suppress(ValueError):
        _, said = json.loads(output.partition(b"\n")[0])
        got = values.native(said)
    if not isinstance(got, dict):
        return f"a right program did not work ({head['ended']}): {output[:200].decode(errors='replace')}"
    most, started = LIMITS["processes"], got.pop("processes")
    expected = {
        "value": most + 10,
        "module": "colorsys",
        "thread": ["said"],
        "file": "kept" if walls.namespaces else None,
        "read outside": None if walls.namespaces or landlock else got["read outside"],
        "written outside": None,
        "socket": None,
    }
    for what, value in expected.items():
        if got.get(what) != value:
            return f"a whole program had {got.get(what)!r} for '{what}' instead of {value!r}"
    if not (0 < started < most if walls.processes else started == 0):
        return f"a whole program could start {started} processes, where the limit is {most if walls.processes else 0}"
    return ""
