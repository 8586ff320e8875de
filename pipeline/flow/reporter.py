"""What a stage says of itself while it runs: to a file for whoever looks on, and to the process that records it.

The stage's side of that pipe: an event a line, which ``recorder.record`` reads.
"""

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.progress import Bar, Console
from pipeline.flow import live, logs, server, warm

PROGRESS_SECONDS = 2.0  # between two updates of a bar
WAIT_SECONDS = 20.0  # for the recording process, once the stage has ended


class Watched(Console):
    """A reporter that also writes how far the stage's loops are, and logs the numbers of its trainings where asked."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._loggers = logs.asked_for(stage)
        self.live = live.Writer(stage)

    @contextlib.contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        with super().bar(name, total) as drawn:
            yield _WatchedBar(self, drawn, name=name, total=total)

    def learnt(self, loop: str, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step of a training."""
        named = {live.titled(self.stage, name).replace(" ", "_"): value for name, value in values.items()}
        for logger in list(self._loggers):
            self._have(logger, partial(logger.log, live.short(loop), step, named))

    def close(self) -> None:
        """The stage has ended."""
        for logger in list(self._loggers):
            self._have(logger, logger.close)
        self.live.close()

    def _have(self, logger: logs.Logger, do: Callable[[], None]) -> None:
        """Have a logger do something. One that fails is left out from then on: it must not end a training."""
        try:
            do()
        except Exception as error:
            self._loggers.remove(logger)
            print(f"note: no longer logged, {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


class _WatchedBar:
    """A bar that is drawn, and written as far as it is."""

    def __init__(self, watched: Watched, drawn: Bar, *, name: str, total: int) -> None:
        self._watched, self._drawn, self._name, self._total, self._done = watched, drawn, name, total, 0
        watched.live.write(name, total, 0, {})

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._drawn.advance(amount, note)
        self._done += amount
        values = live.measures(note)
        self._watched.live.write(self._name, self._total, self._done, values)
        if live.LEARNT in values:
            self._watched.learnt(self._name, self._done, values)


class Recorder(Watched):
    """A reporter that also tells the recorder process. Where that has gone, the stage goes on unheard."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        server.FOLDER.mkdir(parents=True, exist_ok=True)
        hears, tells = os.pipe()
        said, says = os.pipe()
        with (server.FOLDER / "recorder.log").open("ab") as log:
            streams = (hears, says, log.fileno())
            # In a session of its own: a signal that ends the stage must not end the process that records it.
            if not warm.start("pipeline.flow.recorder", "record", streams):
                code = "from pipeline.flow.recorder import record; record()"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code], stdin=hears, stdout=says, stderr=log, start_new_session=True
                )
        os.close(hears)
        os.close(says)
        self._tells, self._said = os.fdopen(tells, "wb"), said
        self._count = 0

    def tell(self, event: str, **details: Any) -> None:
        """Send one event, named as the method of ``recorder.Recording`` that takes its details."""
        line = json.dumps({"event": event, **details}, default=str) + "\n"
        with contextlib.suppress(OSError, ValueError):
            self._tells.write(line.encode())
            self._tells.flush()

    def close(self) -> None:
        """End the recording, and print what the recorder has to say: nothing, if all went well."""
        super().close()
        with contextlib.suppress(OSError):
            self._tells.close()
        words, deadline = b"", time.monotonic() + WAIT_SECONDS
        while select.select([self._said], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(self._said, 65536)
            if not piece:
                break
            words += piece
        os.close(self._said)  # a recorder that is not done yet goes on by itself
        if words.strip():
            print(f"note: {words.decode().strip()}", file=sys.stderr)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        with super().step(name):
            self._count += 1
            number = self._count
            self.tell("step", number=number, name=name)
            try:
                yield
            except BaseException as error:
                state, message = outcome(error)
                self.tell("step_end", number=number, state=state, message=message)
                raise
            self.tell("step_end", number=number, state="Completed", message="")

    @contextlib.contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        with super().bar(name, total) as drawn:
            self._count += 1
            recorded = _RecordedBar(self, drawn, number=self._count, name=name, total=total)
            try:
                yield recorded
            finally:
                recorded.show()

    def markdown(self, key: str, text: str) -> None:
        self.tell("markdown", key=key, text=text)

    def table(self, key: str, rows: Sequence[Mapping[str, object]]) -> None:
        self.tell("table", key=key, rows=list(rows))


class _RecordedBar:
    """A bar that is told to the recorder every PROGRESS_SECONDS, a training's with its curve so far."""

    def __init__(self, recorder: Recorder, watched: Bar, *, number: int, name: str, total: int) -> None:
        self._recorder, self._watched, self._number = recorder, watched, number
        self._loop = live.Loop(recorder.stage, name, total, 0)
        self._told, self._shown = 0, 0.0
        self.show()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._watched.advance(amount, note)
        self._loop = self._loop.advanced(amount, live.measures(note))
        if time.monotonic() - self._shown >= PROGRESS_SECONDS:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        loop, tell = self._loop, self._recorder.tell
        percent = 100.0 * loop.done / max(loop.total, 1)
        tell("progress", number=self._number, percent=percent, text=loop.line)
        if loop.learns and len(loop.curve) > self._told:
            for step, values in loop.curve[self._told :]:
                tell("log", level=logging.INFO, text=f"step {step} of {loop.total}: {live.told(loop.stage, values)}")
            self._told = len(loop.curve)
            tell("curve", number=self._number, loop=loop.name, points=live.points(loop))


def outcome(error: BaseException) -> tuple[str, str]:
    """The state that a run ends in because of ``error``, and the reason shown with it."""
    if isinstance(error, UserError):
        return "Failed", str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled", "interrupted"
    if isinstance(error, SystemExit):
        return ("Cancelled", "terminated") if error.code == 143 else ("Failed", f"exit code {error.code}")
    return "Failed", f"{type(error).__name__}: {error}"
