"""A process that says whether two expressions of LaTeX have the same value, and how it is asked.

Algebra may take for ever, in code that nothing in its own process can interrupt, and math-verify's own time limit works
in a main thread only. So it runs in a process of its own, which any thread may ask, which is ended when it takes too
long, and which starts anew when it is next needed.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from pipeline.core.errors import UserError

SECONDS = 5  # for a comparison
START_SECONDS = 120  # for the process to load sympy, on a busy machine
SCRIPT = Path(__file__).with_name("child.py")


class _Ended(Exception):
    """The process has ended."""


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
                    return self._ask(process, given, expected, 2 * SECONDS)
                except _Ended:
                    self._end()
                except TimeoutError:
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
            self._ask(self._process, "1", "1", START_SECONDS)
        except (_Ended, TimeoutError):
            self._end()
            raise UserError(
                f"expected a process that compares expressions to start, it did not; see what '{sys.executable} "
                f"{SCRIPT} {SECONDS}' says"
            ) from None
        return self._process

    def _ask(self, process: subprocess.Popen[str], given: str, expected: str, seconds: float) -> bool:
        """What the process answers. TimeoutError if it took too long, _Ended if it has ended."""
        assert process.stdin and process.stdout  # both are pipes
        deadline = time.monotonic() + seconds
        try:
            process.stdin.write(json.dumps([given, expected]) + "\n")
            process.stdin.flush()
            soon = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            answer = json.loads(process.stdout.readline()) if soon else None
        except (OSError, ValueError) as error:
            raise _Ended from error
        if answer is None:
            raise TimeoutError
        return bool(answer)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            process.wait()

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
    """Whether two expressions of LaTeX have the same value, as far as algebra can tell in ``SECONDS``."""
    return _verifiers.verifier.same(given, expected)
