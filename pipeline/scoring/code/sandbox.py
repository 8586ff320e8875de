"""Run programs nobody has read, and bring back the values they return.

Each program runs in a process of its own, in the fork server ``worker.py``: no environment, no network, no files
but an empty folder and the standard library (read-only), its own process numbers, and limits on CPU and wall time,
memory, processes, files and output. It is killed with everything it started. Nothing it does can make it pass: the
values expected are never in its reach; what comes back over a pipe is data, compared by our caller.

Where the kernel gives no namespaces, what would be left are the limits, the empty folder and environment, another
user (where we are root) and the hunt for stray processes. That is not enough for code nobody has read: ``run``
refuses, unless the environment variable SELFADAPT_SANDBOX is ``limits``. ``isolation()`` says what is in force.
"""

import atexit
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pipeline.core.errors import UserError
from pipeline.scoring.code.values import native, plain

BARE = "SELFADAPT_SANDBOX"  # "limits": run programs even where the kernel gives no namespaces

# Limits of a program that states no others. They are part of what "correct" means, so they are not settings.
LIMITS: Mapping[str, int] = {
    "cpu_seconds": 1,
    "call_seconds": 1,  # of CPU time
    "wall_seconds": 10,  # more than the CPU time: a busy machine must not turn a right answer into a wrong one
    "memory_bytes": 256 << 20,
    "processes": 8,
    "file_bytes": 1 << 20,
    "output_bytes": 1 << 18,
}


@dataclass(frozen=True)
class Program:
    """source: Python code. function: the one it defines that is called. calls: the arguments of each call.

    limits: as ``LIMITS``, all of them.
    """

    source: str
    function: str
    calls: Sequence[Sequence[Any]]
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS)


@dataclass(frozen=True)
class Outcome:
    """values: what each call returned, in order; shorter than the calls where the program ended early.

    A call that raised, or returned what is no plain data, has the value ``RAISED``.
    ended: ``end`` (of itself), ``time``, ``output`` (too much) or ``lost`` (its worker died each time it was tried).
    """

    values: tuple[Any, ...]
    ended: str


RAISED = object()


class _Worker:
    """One fork server and the pipes to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="selfadapt-sandbox-"))
        script = str(Path(__file__).with_name("worker.py"))
        self.process = subprocess.Popen(
            # No site packages, nothing of the user's; a fixed hash seed, so that sets have one order in every run.
            [sys.executable, "-s", "-S", "-P", "-B", script, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0"},
            cwd=self.folder,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdin and self.process.stdout  # both are pipes
        self._writing, self._reading = self.process.stdin, self.process.stdout
        self.hello = self._receive()

    def ask(self, program: Program) -> tuple[Outcome, float]:
        """What became of a program, and the CPU seconds it used."""
        request = {
            "source": program.source,
            "function": program.function,
            "calls": [plain(list(arguments)) for arguments in program.calls],
            "limits": dict(program.limits),
        }
        data = json.dumps(request).encode()
        self._writing.write(struct.pack(">I", len(data)) + data)
        answer = self._receive()
        if "failure" in answer:
            raise RuntimeError(f"the sandbox could not start a program: {answer['failure']}")
        return Outcome(tuple(_values(answer["lines"])), answer["ended"]), answer["cpu_seconds"]

    def _receive(self) -> dict[str, Any]:
        size = struct.unpack(">I", self._exactly(4))[0]
        return json.loads(self._exactly(size))

    def _exactly(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = self._reading.read(count - len(parts))
            if not part:
                raise EOFError("the sandbox worker has ended")
            parts += part
        return parts

    def close(self) -> None:
        self._writing.close()
        self._reading.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _values(lines: str) -> list[Any]:
    """What a program wrote to its pipe, read as data; reading stops at the first line that is none."""
    values = []
    for line in lines.splitlines():
        try:
            kind, value = json.loads(line)
            values.append(native(value) if kind == "value" else RAISED)
        except (ValueError, TypeError, IndexError, KeyError, RecursionError):
            break
    return values


class _Pool:
    """Workers, one per core, started when first needed and ended with this process."""

    def __init__(self) -> None:
        self.size = len(os.sched_getaffinity(0))
        self.idle: SimpleQueue[_Worker] = SimpleQueue()
        self.lock = threading.Lock()
        self.workers: list[_Worker] = []

    def start(self, count: int) -> None:
        with self.lock:
            while len(self.workers) < min(count, self.size):
                self._add()

    def _add(self) -> None:
        worker = _Worker()
        self.workers.append(worker)
        self.idle.put(worker)

    def run(self, program: Program) -> Outcome:
        """Run a program; once more where the machine, not the program, may have been the reason that it failed."""
        outcome, cpu_seconds = self._try(program)
        stalled = outcome.ended == "time" and cpu_seconds < program.limits["cpu_seconds"] / 2
        if stalled or outcome.ended == "lost":
            outcome, _ = self._try(program)
        return outcome

    def _try(self, program: Program) -> tuple[Outcome, float]:
        worker = self.idle.get()
        try:
            result = worker.ask(program)
        except (EOFError, BrokenPipeError):
            with self.lock:
                worker.close()
                self.workers.remove(worker)
                self._add()
            return Outcome((), "lost"), 0.0
        except RuntimeError:
            self.idle.put(worker)
            raise
        self.idle.put(worker)
        return result

    def close(self) -> None:
        with self.lock:
            for worker in self.workers:
                worker.close()
            self.workers.clear()


_pool = _Pool()
atexit.register(_pool.close)


def run(programs: Sequence[Program]) -> list[Outcome]:
    """What each program's calls returned, in the order of the programs. UserError where they cannot be walled in."""
    if not programs:
        return []
    _pool.start(len(programs))
    hello = _pool.workers[0].hello
    if not hello["walled"] and os.environ.get(BARE) != "limits":
        raise UserError(
            f"expected namespaces to run model-written programs in, the kernel gives only: {_describe(hello)}; allow "
            f"unprivileged user namespaces, or set {BARE}=limits in a container that has no network and no secrets"
        )
    with ThreadPoolExecutor(len(_pool.workers)) as threads:
        return list(threads.map(_pool.run, programs))


def isolation() -> str:
    """Which isolation is in force on this machine, in words."""
    _pool.start(1)
    return _describe(_pool.workers[0].hello)


def _describe(hello: dict[str, Any]) -> str:
    user = "an unprivileged user" if hello["root"] else "this user, without capabilities"
    filtered = "a filter of system calls, " if hello["filtered"] else ""
    if hello["walled"]:
        own = "mount, process, network, IPC, host name" + ("" if hello["root"] else ", user")
        return f"namespaces ({own}), {filtered}only the standard library to see, {user}, limits"
    return (
        f"limits, {filtered}empty folder and environment, {user}; network and files of this user are open to programs"
    )
