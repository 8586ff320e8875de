"""What a person sees of a run: on a terminal one live view, in a file or a pipe a line for each news.

The view has how far the run is and how long it may still take, and below it each running stage with the loop that it is
in. A training shows its reward (or its loss), the best validation, and the course of its last steps.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.flow import forecast, live
from pipeline.flow.run import Graph, Outcome

SIGNS = {"done": "[green]✓[/]", "unchanged": "[dim]=[/]", "failed": "[red]✗[/]", "skipped": "[yellow]–[/]"}
PLAIN_SECONDS = 30.0  # between two lines on what runs, where they are kept
FRAMES = 2  # of the live view in a second


class View:
    """A run as it goes on. counts: how many stages ended in each way."""

    def __init__(self, console: Console, records: Path, jobs: int) -> None:
        self.counts = dict.fromkeys(SIGNS, 0)
        self._console, self._records, self._jobs = console, records, jobs
        self._running: dict[str, float] = {}
        self._waiting: forecast.Waiting | None = None
        self._said: dict[str, str] = {}

    def tell(self, news: Graph | Outcome | str) -> None:
        """Take in what the run says: the graph, a stage that starts, or how one ended."""
        if isinstance(news, Graph):
            seconds = forecast.recorded_seconds(self._records)
            self._waiting = forecast.Waiting.of(news.needs, news.changed, seconds, self._jobs)
        elif isinstance(news, str):
            self._running[news] = time.monotonic()
            if not self._console.is_terminal:
                self._say(f"· {news}  ({self.headline})")
        else:
            self._running.pop(news.stage, None)
            if self._waiting:
                self._waiting.end(news.stage)
            self.counts[news.state] += 1
            took = f"  {news.seconds:.1f} s" if news.seconds else ""
            reason = f"  {news.reason}" if news.reason else ""
            self._say(f"{SIGNS[news.state]} {news.stage}{took}{escape(reason)}")

    def _say(self, line: str) -> None:
        """A line that is not broken: whoever reads a pipe has no window."""
        self._console.print(line, soft_wrap=True)

    @property
    def headline(self) -> str:
        """How far the run is, and how long it may take: by earlier records, or by the loops, where they say more."""
        if not self._waiting:
            return "reading the graph"
        running, now = dict(self._running), time.monotonic()
        loops = {stage: loop for stage in running if (loop := live.read(stage)) and loop.done}
        left = {stage: (now - running[stage]) * (loop.total / loop.done - 1) for stage, loop in loops.items()}
        return self._waiting.said(running, left)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the block runs."""
        if self._console.is_terminal:
            with Live(console=self._console, get_renderable=self.drawn, refresh_per_second=FRAMES, transient=True):
                yield
            return
        ended = threading.Event()
        teller = threading.Thread(target=self._keep_telling, args=(ended,), daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()

    def _keep_telling(self, ended: threading.Event) -> None:
        while not ended.wait(PLAIN_SECONDS):
            for line in self.lines():
                self._say(escape(line))

    def lines(self) -> list[str]:
        """What is new of the stages that run, a line each."""
        new = {stage: loop.line for stage in list(self._running) if (loop := live.read(stage))}
        lines = [f"  {stage}: {line}" for stage, line in new.items() if self._said.get(stage) != line]
        self._said = new
        return lines

    def drawn(self) -> RenderableType:
        """The view."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for stage, since in list(self._running.items()):
            loop = live.read(stage)
            table.add_row(
                Text(stage, style="bold"),
                Text(_clock(time.monotonic() - since), style="dim"),
                ProgressBar(total=loop.total, completed=loop.done, width=12) if loop else Text(""),
                Text(f"{loop.done} of {loop.total}") if loop else Text("starting", style="dim"),
                _numbers(loop) if loop else Text(""),
            )
        return Group(Text(self.headline, style="bold cyan"), table)


def _numbers(loop: live.Loop) -> Text:
    """A loop's numbers with their course; the name of one that tells none."""
    told = live.told(loop.stage, loop.latest) or loop.name
    return Text.assemble(f"{told}  ", (loop.drawing, "green"))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
