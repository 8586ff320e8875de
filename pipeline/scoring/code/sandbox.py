"""Run programs nobody has read, and bring back the values they return.

Each program runs in a process of its own, started by ``worker``: no environment, no network, no files but an empty
folder and the standard library (read-only), its own process numbers, a list of system calls that it may make, and
limits on CPU time, sleep, wall time, memory, processes, files and output. It is killed with everything it started.
Nothing it does can make it pass: the values expected are never in its reach; what comes back over a pipe is data,
compared by our caller.

Which walls the kernel gives is tried at the start with a whole program (``trial``). Where it gives no namespaces, what
is left are the list of system calls (no network, no processes, no files written), limits, and Landlock if there is
one. That is less than code nobody has read should get: ``run`` refuses, unless the environment variable
SELFADAPT_SANDBOX is ``limits``. ``isolation()`` says what is in force.
"""

import atexit
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import UserError
from pipeline.scoring.code import values
from pipeline.scoring.code.pool import Pool

BARE = "SELFADAPT_SANDBOX"  # "limits": run programs even where the kernel gives no namespaces

# Limits of a program that states no others. They are part of what "correct" means, so they are not settings.
LIMITS: Mapping[str, int] = {
    "cpu_seconds": 1,
    "call_seconds": 1,  # of CPU time
    "asleep_seconds": 3,  # nothing of it runs, or waits for a CPU or a disk; all calls together
    "wall_seconds": 10,  # more than the CPU time: a busy machine must not turn a right answer into a wrong one
    "memory_bytes": 256 << 20,
    "processes": 8,
    "file_bytes": 1 << 20,
    "output_bytes": 1 << 18,
}
LONGEST_LINE = values.LARGE + 64  # bytes of a line that we write for a call


@dataclass(frozen=True)
class Program:
    """source: Python code. function: the one it defines that is called. calls: the arguments of each call.

    before, after: code of ours, run in the same module before the source and after it. limits: as ``LIMITS``, all.
    """

    source: str
    function: str
    calls: Sequence[Sequence[Any]]
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS)
    before: str = ""
    after: str = ""

    def request(self) -> dict[str, Any]:
        """The program as JSON, for a worker."""
        return {
            "source": self.source,
            "function": self.function,
            "calls": [values.plain(list(arguments)) for arguments in self.calls],
            "limits": dict(self.limits),
            "before": self.before,
            "after": self.after,
        }


@dataclass(frozen=True)
class Outcome:
    """values: what each call returned, in order; shorter than the calls where the program ended early.

    A call that raised, or returned what is no plain data, has the value ``RAISED``.
    ended: ``end`` (of itself), ``time``, ``asleep`` (too long), ``output`` (too much) or ``lost`` (its worker died).
    ours: whether the machine may have been the reason, not the program. failure: why its process did not come about.
    """

    values: tuple[Any, ...]
    ended: str
    ours: bool = field(default=False, compare=False)
    failure: str = field(default="", compare=False)


RAISED = object()


def run(programs: Sequence[Program]) -> list[Outcome]:
    """What each program's calls returned, in the order of the programs. UserError where they cannot be walled in.

    Where the machine may have been the reason that a program failed, it is tried once more: always if its worker was
    lost; if it ran out of time, only while the batch takes no longer than the wall time of all its programs, shared by
    the workers.
    """
    if not programs:
        return []
    _permitted()
    pool = _pools.current()
    workers = len(pool.places)
    ending = time.monotonic() + sum(program.limits["wall_seconds"] for program in programs) / workers

    def again(program: Program, outcome: Outcome) -> Outcome:
        late = time.monotonic() + program.limits["wall_seconds"] > ending
        return _try(program) if outcome.ours and (outcome.ended == "lost" or not late) else outcome

    with ThreadPoolExecutor(workers) as threads:
        try:
            outcomes = list(threads.map(_try, programs))
            outcomes = list(threads.map(again, programs, outcomes))
        except BaseException:  # an interrupt, say: those that have not begun are left
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    for outcome in outcomes:
        if outcome.failure:
            raise UserError(
                f"expected a process for a model-written program, got: {outcome.failure}; run again on a machine "
                "with more processes and memory left"
            )
    return outcomes


def _try(program: Program) -> Outcome:
    answer = _pools.current().ask(program.request())
    if answer is None:
        return Outcome((), "lost", ours=True)
    head, output = answer
    if "failure" in head:
        return Outcome((), "lost", ours=True, failure=head["failure"])
    limit = program.limits["cpu_seconds"]
    ours = head["ended"] in ("time", "asleep") and head["cpu_seconds"] < limit / 2
    return Outcome(tuple(_values(output, len(program.calls), limit)), head["ended"], ours)


def _values(output: bytes, calls: int, seconds: float) -> list[Any]:
    """What a program wrote to its pipe, read as data; reading stops at the first line that is none of ours.

    Programs may write what they like there. Whatever it does to a reader is no error of ours, and costs no more than
    the program itself may.
    """
    ending = time.monotonic() + seconds
    read: list[Any] = []
    for line in output.split(b"\n", calls)[:calls]:
        if len(line) > LONGEST_LINE or time.monotonic() > ending:
            break
        try:
            kind, value = json.loads(line.decode("ascii"))
            read.append({"value": values.native, "raised": lambda _: RAISED}[kind](value))
        except Exception:
            break
    return read


def isolation() -> str:
    """Which isolation is in force on this machine, in words."""
    return _describe(_pools.current().hello())


def _permitted() -> None:
    hello = _pools.current().hello()
    walls = hello["walls"]
    if walls is None:
        raise UserError(
            f"expected walls that hold model-written programs, got none ({'; '.join(hello['faults'])}); "
            "score on Linux 5.3 or later, where processes may filter system calls (seccomp)"
        )
    if walls["kind"] == "limits" and os.environ.get(BARE) != "limits":
        raise UserError(
            f"expected namespaces to run model-written programs in, but the kernel gives only: {_describe(hello)}; "
            f"allow unprivileged user namespaces, or set {BARE}=limits in a container that has no secrets"
        )


def _describe(hello: Mapping[str, Any]) -> str:
    walls = hello["walls"]
    if walls is None:
        return f"none ({'; '.join(hello['faults'])})"
    user = "an unprivileged user" if walls["nobody"] else "this user, without capabilities"
    processes = "" if walls["processes"] else ", no processes of their own"
    if walls["kind"] != "limits":
        spaces = "mount, process, network, IPC, host name" + (", user" if walls["kind"] == "own" else "")
        sight = "a list of system calls, only the standard library to see"
        return f"namespaces ({spaces}), {sight}, {user}{processes}, limits"
    files = "only the standard library to read" if hello["landlock"] else "files of this user are open to be read"
    return f"limits, a list of system calls (no network, nothing written), {user}{processes}; {files}"


class _Pools:
    """The pool of this process: a fork of it makes one of its own."""

    def __init__(self) -> None:
        self._forget()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._pool: Pool | None = None
        self._making = threading.Lock()

    def current(self) -> Pool:
        """The pool of this process, made when it is first needed."""
        with self._making:
            if self._pool is None:
                self._pool = Pool()
            return self._pool

    def close(self) -> None:
        """End all workers; the next program starts new ones."""
        with self._making:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


_pools = _Pools()
