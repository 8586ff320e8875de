"""The stage's side of the pipe: it says what the stage does, an event a line (``recorder.record`` reads them)."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.progress import Bar, Console
from pipeline.flow import server, warm

PROGRESS_SECONDS = 2.0  # between two updates of a bar
WAIT_SECONDS = 20.0  # for the recording process, once the stage has ended


class Recorder(Console):
    """A reporter that also tells the recorder process. Where that has gone, the stage goes on unheard."""

    def __init__(self) -> None:
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
    """A bar that is drawn, and told to the recorder every PROGRESS_SECONDS."""

    def __init__(self, recorder: Recorder, drawn: Bar, *, number: int, name: str, total: int) -> None:
        self._recorder, self._drawn, self._number, self._name, self._total = recorder, drawn, number, name, total
        self._done, self._note, self._shown = 0, "", 0.0
        self.show()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._drawn.advance(amount, note)
        self._done, self._note = self._done + amount, note or self._note
        if time.monotonic() - self._shown >= PROGRESS_SECONDS:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        text = f"{self._name}: {self._done} of {self._total}" + (f", {self._note}" if self._note else "")
        percent = 100.0 * self._done / max(self._total, 1)
        self._recorder.tell("progress", number=self._number, percent=percent, text=text)


def outcome(error: BaseException) -> tuple[str, str]:
    """The state that a run ends in because of ``error``, and the reason shown with it."""
    if isinstance(error, UserError):
        return "Failed", str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled", "interrupted"
    if isinstance(error, SystemExit):
        return ("Cancelled", "terminated") if error.code == 143 else ("Failed", f"exit code {error.code}")
    return "Failed", f"{type(error).__name__}: {error}"
