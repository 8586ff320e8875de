"""Worker processes that run programs, one for each CPU; how requests reach them, and how they come back.

Nothing that a program does, and nothing that happens to a worker, may cost the pool a place: a worker that ends, stops
answering or answers nonsense is killed with everything it holds, and its place starts another one when it is needed.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pipeline.core.errors import UserError

SCRIPT = Path(__file__).with_name("worker.py")
START_SECONDS = 60  # for a worker to choose its walls
GRACE_SECONDS = 10  # beyond a program's own limit, for its keeper to end it and to answer
LONGEST_HEAD = 1 << 20  # bytes


class Lost(Exception):
    """A worker has ended, or is of no use any more."""


def command(folder: Path) -> list[str]:
    """How a worker is started: no site packages, nothing of the user's, nothing written."""
    return [sys.executable, "-s", "-S", "-P", "-B", str(SCRIPT), str(folder)]


class Worker:
    """One worker process and the pipes to it. hello: the walls that it has chosen, as ``keeper.serve`` says."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="selfadapt-sandbox-"))
        self.folder.chmod(0o755)  # programs may run as another user; the folder stays empty
        self.process = subprocess.Popen(
            command(self.folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0"},  # sets of texts then have one order in every run
            cwd=self.folder,
            start_new_session=True,
            bufsize=0,
        )
        assert self.process.stdin and self.process.stdout  # both are pipes
        self._writing, self._reading = self.process.stdin, self.process.stdout
        os.set_blocking(self._writing.fileno(), False)
        try:
            self.hello, _ = self._receive(time.monotonic() + START_SECONDS, 0)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What became of a program: how it ended, and what it wrote. Raises Lost where the worker is of no use."""
        limits = request["limits"]
        deadline = time.monotonic() + limits["wall_seconds"] + GRACE_SECONDS
        self._send(json.dumps(request).encode(), deadline)
        return self._receive(deadline, limits["output_bytes"] + (1 << 16))

    def _send(self, request: bytes, deadline: float) -> None:
        left = memoryview(struct.pack(">I", len(request)) + request)
        while left:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([], [self._writing], [], wait)[1]:
                raise Lost("a request was not taken in time")
            try:
                left = left[self._writing.write(left) or 0 :]
            except OSError as error:
                raise Lost(str(error)) from error

    def _receive(self, deadline: float, most: int) -> tuple[dict[str, Any], bytes]:
        """The next answer: its head, and the bytes that follow it. most: of these bytes."""
        size = struct.unpack(">I", self._exactly(4, deadline))[0]
        if size > LONGEST_HEAD:
            raise Lost(f"an answer of {size} bytes")
        try:
            head = json.loads(self._exactly(size, deadline))
            following = int(head["size"])
        except (ValueError, KeyError, TypeError) as error:
            raise Lost(f"an answer that is none: {error}") from error
        if not 0 <= following <= most:
            raise Lost(f"an output of {following} bytes")
        return head, self._exactly(following, deadline)

    def _exactly(self, count: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reading], [], [], left)[0]:
                raise Lost("no answer in time")
            part = self._reading.read(min(count - len(parts), 1 << 20))
            if not part:
                raise Lost("the worker has ended")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """End the worker, its keeper and its program, and remove its folder."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(
            ProcessLookupError
        ):  # its group: a keeper is in it, and a program ends with its keeper
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Place:
    """Where a worker stands, if there is one now."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def start(self) -> Worker:
        """The worker of this place. UserError where none starts."""
        if self.worker is None:
            try:
                self.worker = Worker()
            except (OSError, Lost) as error:
                raise UserError(
                    f"expected a process for model-written programs to start, got: {error}; look for what the machine "
                    "lacks (processes, memory, space for temporary files) and run again"
                ) from error
        return self.worker

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes] | None:
        """What became of a program; None if its worker was lost, which then has gone."""
        try:
            return self.start().ask(request)
        except Lost:
            self.close()
            return None
        except BaseException:  # an interrupt, say: what the worker would answer next is not known
            self.close()
            raise

    def close(self) -> None:
        """End the worker of this place."""
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.close()


class Pool:
    """As many places as this process has CPUs. Each program takes one, and always gives it back."""

    def __init__(self) -> None:
        self.places = [Place() for _ in os.sched_getaffinity(0)]
        self._idle: SimpleQueue[Place] = SimpleQueue()
        self._starting = threading.Lock()
        for place in self.places:
            self._idle.put(place)

    def hello(self) -> dict[str, Any]:
        """What the first worker says of its walls."""
        with self._starting:
            return self._with_place(lambda place: place.start().hello)

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes] | None:
        """Run a program in the next place that is free; None if its worker was lost."""
        return self._with_place(lambda place: place.ask(request))

    def _with_place(self, use: Callable[[Place], Any]) -> Any:
        place = self._idle.get()
        try:
            return use(place)
        finally:
            self._idle.put(place)

    def workers(self) -> list[Worker]:
        """The workers that there are now."""
        return [place.worker for place in self.places if place.worker is not None]

    def close(self) -> None:
        """End all workers."""
        for place in self.places:
            place.close()
