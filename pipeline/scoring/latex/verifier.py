"""A process that says whether two expressions of LaTeX have the same value, and how it is asked.

Algebra may take for ever, in code that nothing in its own process can interrupt, and math-verify's own time limit works
in a main thread only. So it runs in a process of its own, which any thread may ask, which is ended when a comparison
takes too long, and which starts anew when it is next needed.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pipeline.core.errors import UserError

SECONDS = 5  # of CPU time, for a comparison; twice that where it cannot be interrupted
ANSWER_SECONDS = 120  # for the process to load sympy, or to compare, on a busy machine
SCRIPT = Path(__file__).with_name("child.py")


class _Ended(Exception):
    """The process has ended."""


class _TooLong(Exception):
    """A comparison has taken too long."""


class Verifier:
    """The process, which starts with the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._asking = threading.Lock()
        self._endless: set[str] = set()  # expressions that took too long, or ended it: they are not tried again

    def same(self, given: str, expected: str) -> bool:
        """Whether two expressions have the same value. False where that could not be told in time."""
        with self._asking:
            if given in self._endless:
                return False
            for _ in range(2):  # it may have been ended from outside
                process = self._process or self._start()
                try:
                    return self._ask(process, given, expected)
                except _Ended:
                    if self._end() == -signal.SIGXCPU:  # its CPU time was used up
                        break
                except _TooLong:
                    self._end()
                    break
            self._endless.add(given)
            return False

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT), str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # the order in which sympy tries things is the same in every run
        )
        try:
            self._ask(self._process, "1", "1")
        except (_Ended, _TooLong):
            self._end()
            raise UserError(
                f"expected a process that compares expressions to start, but it did not; see what '{sys.executable} "
                f"{SCRIPT} {SECONDS}' says"
            ) from None
        return self._process

    def _ask(self, process: subprocess.Popen[str], given: str, expected: str) -> bool:
        """What the process answers. Raises _TooLong or _Ended where it does not."""
        assert process.stdin and process.stdout  # both are pipes
        try:
            process.stdin.write(json.dumps([given, expected]) + "\n")
            process.stdin.flush()
            in_time = select.select([process.stdout], [], [], ANSWER_SECONDS)[0]
            answer = json.loads(process.stdout.readline()) if in_time else None
        except (OSError, ValueError) as error:
            raise _Ended from error
        if answer is None:
            raise _TooLong
        return bool(answer)

    def _end(self) -> int | None:
        """End the process. Its exit code, negative for the signal that ended it; None if there was no process."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()  # of one that has ended before, this changes no exit code
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return process.wait()

    def close(self) -> None:
        """End the process; the next question starts it anew, and knows of none before."""
        with self._asking:
            self._end()
            self._endless.clear()


class _Verifiers:
    """The verifier of this process: a fork of it makes one of its own."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(lambda: self.verifier.close())

    def _forget(self) -> None:
        self.verifier = Verifier()


_verifiers = _Verifiers()


def same(given: str, expected: str) -> bool:
    """Whether two expressions of LaTeX have the same value, as far as algebra tells in time."""
    return _verifiers.verifier.same(given, expected)
