"""What a person sees of long work.

Stages and library mark their steps with ``step`` and their loops with ``progress``; what becomes of the marks
is the reporter's business. Bare, they are printed and drawn as a bar; under ``pipeline.flow`` a step is a
Prefect task and a bar a progress artifact. So nothing but ``pipeline.flow`` knows Prefect.
"""

import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


class Bar(Protocol):
    """A loop that can be watched."""

    def advance(self, amount: int = 1, note: str = "") -> None: ...


class Reporter(Protocol):
    """Where steps, bars and notes go."""

    def step(self, name: str) -> AbstractContextManager[None]: ...

    def bar(self, name: str, total: int) -> AbstractContextManager[Bar]: ...

    def markdown(self, key: str, text: str) -> None: ...

    def table(self, key: str, rows: Sequence[Mapping[str, object]]) -> None: ...


def written_anywhere() -> None:
    """Have what a terminal's encoding lacks (an α under ASCII) written as an escape, instead of ending the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _TqdmBar:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def advance(self, amount: int = 1, note: str = "") -> None:
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(amount)


class Console:
    """Prints steps, draws bars on a terminal only, and keeps notes to itself."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        print(f"· {name}", file=sys.stderr, flush=True)
        yield

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        with tqdm(total=total, desc=name, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False) as bar:
            yield _TqdmBar(bar)

    def markdown(self, key: str, text: str) -> None:
        pass

    def table(self, key: str, rows: Sequence[Mapping[str, object]]) -> None:
        pass


_reporter: Reporter = Console()
# Name and seconds of the steps finished so far in this process: the stage runner puts them into the run record.
finished_steps: list[tuple[str, float]] = []


def report_to(reporter: Reporter) -> None:
    """Send all later marks to ``reporter``."""
    global _reporter
    _reporter = reporter


@contextmanager
def step(name: str) -> Iterator[None]:
    """Mark a step of a stage, e.g. ``with step("load the base model"):``."""
    start = time.perf_counter()
    with _reporter.step(name):
        yield
    finished_steps.append((name, time.perf_counter() - start))


@contextmanager
def bar(name: str, total: int) -> Iterator[Bar]:
    """A bar to advance by hand, with a short note (e.g. the current reward)."""
    with _reporter.bar(name, total) as drawn:
        yield drawn


def progress(name: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Go through ``items`` with a bar."""
    with bar(name, total) as drawn:
        for item in items:
            yield item
            drawn.advance()


def show_markdown(key: str, text: str) -> None:
    """Show a text beside the run (nothing, on a console). ``key``: lower case letters, digits and dashes."""
    _reporter.markdown(key, text)


def show_table(key: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Show a table beside the run (nothing, on a console). ``key``: lower case letters, digits and dashes."""
    _reporter.table(key, rows)
