"""The process in which model-written programs run: it chooses its walls once, then runs one program after the other.

    worker       behind the outer walls; waits for requests on fd 0, answers on fd 1
      keeper     one per program: own mounts and process numbers; holds the clocks and the program's pipe
        program  process 1 of its namespace: when it is killed, the kernel kills all that it has started

Both descriptors are closed in the program. Whatever it writes to its pipe is data for the other side to compare: the
values expected never come here. A request is JSON behind its length; an answer is JSON behind its length, and then
what the program wrote. Standard library only.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Mapping
from typing import Any

from pipeline.scoring.code import program, walls
from pipeline.scoring.code.libc import call
from pipeline.scoring.code.trial import REQUEST, fault
from pipeline.scoring.code.walls import Walls

# Imported once, so that the forked programs have them at no cost; those of the last line also since they need
# libraries of the machine, which are not to be seen from inside the walls.
PRELOADED = """
array bisect cmath collections copy dataclasses datetime decimal enum fractions functools hashlib heapq itertools math
operator queue re statistics string textwrap typing
binascii bz2 lzma sqlite3 uuid zlib
"""
for _name in PRELOADED.split():
    with contextlib.suppress(ImportError):  # a Python may be built without some
        __import__(_name)

READY = b"ready\n"  # written before the program's first line runs: without it, it was we who failed
TICK = 0.25  # seconds between two looks at how much a program sleeps
PR_SET_PDEATHSIG = 1


def serve(folder: str) -> None:
    """Choose walls, say which on fd 1, and run what is asked for until the other side has gone."""
    os.environ.clear()
    os.umask(0o077)
    sleep = Sleep()
    chosen, faults = _choose(folder, sleep)
    if chosen is None:
        _send({"walls": None, "faults": faults})
        return
    walls.build(chosen, folder)
    walls.undumpable()
    gc.collect()
    gc.freeze()  # forked programs then share our memory instead of copying it
    landlock = 0 if chosen.namespaces else walls.landlock_version()
    _send({"walls": vars(chosen), "root": os.geteuid() == 0, "landlock": landlock, "faults": faults})
    while (request := _receive()) is not None:
        if _in_a_child(lambda request=request: _answer(request, chosen, sleep)) != 0:
            return  # the keeper was killed: whether it has answered is not known


def _answer(request: Mapping[str, Any], chosen: Walls, sleep: "Sleep") -> None:
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a keeper ends with its worker
    try:
        head, output = keep(request, chosen, sleep)
    except OSError as error:  # of ours, not of the program's: its errors end in its own process
        head, output = {"failure": str(error)}, b""
    _send(head, output)


def _choose(folder: str, sleep: "Sleep") -> tuple[Walls | None, list[str]]:
    """The first walls in which a whole program works and is held, and what was wrong with those before."""
    faults: list[str] = []
    for candidate in walls.CANDIDATES:
        if candidate.nobody and os.geteuid() != 0:
            continue
        wrong = _try(candidate, folder, sleep)
        if not wrong:
            return candidate, faults
        if (said := f"{candidate.kind}: {wrong}") not in faults:
            faults.append(said)
    return None, faults


def _try(candidate: Walls, folder: str, sleep: "Sleep") -> str:
    """What is wrong with some walls; empty if nothing is. In a child, since walls cannot be taken back."""
    reading, writing = os.pipe()

    def trial() -> None:
        try:
            walls.build(candidate, folder)
            walls.undumpable()
            head, output = keep(REQUEST, candidate, sleep)
            wrong = fault(candidate, walls.landlock_version(), head, output)
        except (OSError, ValueError) as error:
            wrong = str(error) or type(error).__name__
        os.write(writing, wrong.encode()[:4000])

    status = _in_a_child(trial)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        wrong = said.read().decode(errors="replace")
    return wrong or ("" if status == 0 else f"the trial ended with {status}")


def _in_a_child(task: Any) -> int:
    """Do something in a forked process, and wait for it. Its exit code; 0 if all went well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ---- one program ---------------------------------------------------------------------------------------------------


def keep(request: Mapping[str, Any], chosen: Walls, sleep: "Sleep") -> tuple[dict[str, Any], bytes]:
    """Run one program in a child of ours: how it ended and what CPU time it took, and what it wrote to its pipe."""
    limits = request["limits"]
    walls.separate(chosen)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _become(request, chosen, writing)
        finally:
            os._exit(0)
    os.close(writing)
    try:
        ended, output = _watch(reading, child, limits, sleep)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not output.startswith(READY):
        raise OSError(f"the program's process could not be made ready ({ended}): {output.decode(errors='replace')}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"ended": ended, "cpu_seconds": used.ru_utime + used.ru_stime}, output.removeprefix(READY)


def _become(request: Mapping[str, Any], chosen: Walls, writing: int) -> None:
    """In the child: give up all rights and become the program."""
    nowhere = os.open(os.devnull, os.O_RDWR)  # which the program may not be allowed to open
    try:
        walls.give_up(chosen, request["limits"])
    except OSError as error:
        os.write(writing, str(error).encode())
        return
    os.write(writing, READY)
    program.run(request, writing, nowhere)


def _watch(reading: int, child: int, limits: Mapping[str, int], sleep: "Sleep") -> tuple[str, bytes]:
    """How the program ended, and what it wrote. When it has ended, what it started does not keep us waiting."""
    deadline = time.monotonic() + limits["wall_seconds"]
    watched = select.poll()
    ending = os.pidfd_open(child)
    for descriptor, events in ((reading, select.POLLIN), (ending, select.POLLIN), (0, 0)):
        watched.register(descriptor, events)
    parts: list[bytes] = []
    size = 0
    looked, asleep = time.monotonic(), 0.0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return "time", b"".join(parts)
        ready = dict(watched.poll(1000 * min(left, TICK)))
        if 0 in ready:
            return "alone", b""  # who asked has gone
        if reading in ready:
            part = os.read(reading, 1 << 16)
            if not part:
                return "end", b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > limits["output_bytes"]:
                return "output", b"".join(parts)
        elif ending in ready:
            return "end", b"".join(parts)
        if (now := time.monotonic()) - looked >= TICK:
            asleep += (now - looked) * sleep.of(child)
            looked = now
        if asleep > limits["asleep_seconds"]:
            return "asleep", b"".join(parts)


class Sleep:
    """Tells whether a process and all that it has started sleep: no thread runs, waits for a CPU or waits for a disk.

    So a busy machine puts nobody to sleep, nor one who waits for a child that works. The states are read from /proc,
    which is opened before the walls stand. Where it is not there, or belongs to another namespace, nobody is known to
    sleep; where it does not tell of children, they are left out.
    """

    def __init__(self) -> None:
        self._proc: int | None = None
        with contextlib.suppress(OSError):
            proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if os.readlink("self", dir_fd=proc) == str(os.getpid()):
                self._proc = proc

    def of(self, process: int) -> bool:
        """Whether a process sleeps now, with all that it has started."""
        if self._proc is None:
            return False
        looked_at = [str(process)]
        try:
            for one in looked_at:  # which grows by the children
                for thread in self._names(f"{one}/task"):
                    stat = self._read(f"{one}/task/{thread}/stat")  # "number (any name) state ..."
                    if stat.rpartition(")")[2].split()[0] in "RD":
                        return False
                    with contextlib.suppress(OSError):
                        looked_at += self._read(f"{one}/task/{thread}/children").split()
        except OSError:  # one has just ended
            return False
        return True

    def _names(self, path: str) -> list[str]:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._proc)
        try:
            return os.listdir(opened)  # noqa: PTH208 (of an open folder, which has no path here)
        finally:
            os.close(opened)

    def _read(self, path: str) -> str:
        opened = os.open(path, os.O_RDONLY, dir_fd=self._proc)
        try:
            return os.read(opened, 1000).decode(errors="replace")
        finally:
            os.close(opened)


# ---- requests and answers ------------------------------------------------------------------------------------------


def _send(head: Mapping[str, Any], output: bytes = b"") -> None:
    said = json.dumps({**head, "size": len(output)}).encode()
    left = memoryview(struct.pack(">I", len(said)) + said + output)
    while left:
        left = left[os.write(1, left) :]


def _receive() -> Any:
    """The next request, or None when the other side has gone."""
    head = _exactly(4)
    body = _exactly(struct.unpack(">I", head)[0]) if head else None
    return json.loads(body) if body else None


def _exactly(count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(0, min(count - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
