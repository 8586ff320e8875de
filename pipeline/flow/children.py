"""The processes that a run of the graph starts: none outlives the run, however that ends.

Each is a process group of its own: DVC, the shell that DVC starts, and the stage. A second process, the guard, hears
through a pipe of every group that begins and ends. When the run is killed, the pipe ends, and the guard ends all groups
that are left. Stages that were forked from the warm server are in no group: each ends with the process that asked for
it, which is in one.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

UNWIND_SECONDS = 15.0  # for what was interrupted to clean up, before it is killed
GUARD_SECONDS = 1.0  # the same after the run was killed, when nobody waits for it any more
LOOK_SECONDS = 5.0  # between two looks at a child that runs
# What a child does first: it tells the guard, by its standard input, that its group is there. If the run did that, it
# could be killed between the two. Without a guard, which somebody may have killed, the child goes on as well.
ENROL = """trap '' PIPE; echo "+$$" >&0 2>/dev/null; trap - PIPE; exec "$@" </dev/null"""

# What a Python child that must not outlive its parent does first: Linux kills it then. argv: the parent's pid, words.
DIES = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]): os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def python_until_we_die(*words: str) -> list[str]:
    """The command that runs Python with these words, and is killed when the thread that starts it has gone."""
    start = ["-c", DIES, str(os.getpid())] if sys.platform == "linux" else []
    return [sys.executable, *start, *words]


class Children:
    """The processes that run now."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # stages are run by several threads

    def run(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str], waiting: Callable[[int], bool]
    ) -> int:
        """Run ``command`` to its end; its exit code, or minus the signal that ended it.

        log: receives all that the command writes. waiting: is asked every LOOK_SECONDS, with the process's number,
        whether to go on waiting for it; if not, it is killed.
        """
        guard = self._started_guard()
        enrolled = ["sh", "-c", ENROL, "sh", *command]
        with log.open("wb") as file:
            child = subprocess.Popen(
                enrolled, stdin=guard, stdout=file, stderr=file, env=environment, start_new_session=True
            )
        self._running.add(child)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = child.wait(LOOK_SECONDS)
                    break
                if not waiting(child.pid):
                    _signal(child.pid, signal.SIGKILL)
            if code < 0:
                _signal(child.pid, signal.SIGKILL)  # its stage must not go on without DVC
            return code
        finally:
            self._running.discard(child)
            with contextlib.suppress(OSError):
                guard.write(f"-{child.pid}\n".encode())

    def end(self, seconds: float | None = None) -> None:
        """End what runs: as by Ctrl-C, which DVC and the stages answer by cleaning up, and after a while for good.

        seconds: that while; UNWIND_SECONDS if nothing is said.
        """
        _end([child.pid for child in list(self._running)], UNWIND_SECONDS if seconds is None else seconds)

    def _started_guard(self) -> IO[bytes]:
        """The pipe to the guard."""
        with self._lock:
            if self._guard is None:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__],  # needs nothing that is installed, and is there at once
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        assert self._guard.stdin is not None
        return self._guard.stdin

    def close(self) -> None:
        """End the guard."""
        if self._guard:
            self._guard.communicate()


def _end(groups: Iterable[int], seconds: float) -> None:
    """Interrupt process groups, and kill those that are there after ``seconds``."""
    left = [group for group in groups if _signal(group, signal.SIGINT)]
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [group for group in left if _signal(group, 0)]
    for group in left:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a process group (0: none); whether the group was there."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def guard() -> None:
    """Read from stdin which groups start and end; at the end of the pipe, end those that are left."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    _end(groups, GUARD_SECONDS)


if __name__ == "__main__":
    guard()
