"""What a running stage has come to, for whoever looks on: a file of the stage's loops, a line of JSON for each news.

A loop tells its numbers in the note of its bar: ``0.312, validation 0.480`` is what a training's last step came to, and
what the best of its validated states did; ``best 0.75`` is a search's. The file is there while the stage runs.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pipeline.core.errors import UserError
from pipeline.core.reading import read_whole

FOLDER = Path(".selfadapt/live")
NUMBER = re.compile(r"(?:(?P<name>[a-z][a-z ]*) )?(?P<value>[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
LEARNT = "train"  # the number without a name
REWARDED = ("train_svf", "train_reinforce", "fit_classifier")  # stages whose trainings learn from rewards
LEVELS = "▁▂▃▄▅▆▇█"
DRAWN = 24  # points of a curve in a line of text


def measures(note: str) -> dict[str, float]:
    """The numbers of a bar's note, by name; none where it is another text."""
    parts = [NUMBER.fullmatch(part) for part in note.split(", ")]
    return {part["name"] or LEARNT: float(part["value"]) for part in parts if part} if all(parts) else {}


def titled(stage: str, name: str) -> str:
    """What a number of a stage is called, for a person."""
    if name == LEARNT:
        return "reward" if stage.partition("@")[0] in REWARDED else "loss"
    return {"validation": "best validation"}.get(name, name)


def short(loop: str) -> str:
    """What stands in brackets in a loop's name: ``next_token`` of ``train (next_token)``."""
    return loop.partition("(")[2].removesuffix(")") or loop


def told(stage: str, values: dict[str, float]) -> str:
    """Numbers of a stage in words: ``reward 0.312, best validation 0.480``."""
    return ", ".join(f"{titled(stage, name)} {value:.3f}" for name, value in values.items())


@dataclass(frozen=True)
class Loop:
    """A loop of a stage: how far it is, and its numbers by name at each of the places where it told any."""

    stage: str
    name: str
    total: int
    done: int
    curve: tuple[tuple[int, dict[str, float]], ...] = ()

    def advanced(self, amount: int, values: dict[str, float]) -> "Loop":
        """It after more of it was done. values: the numbers that were told with that, if any."""
        done = self.done + amount
        return replace(self, done=done, curve=(*self.curve, (done, values)) if values else self.curve)

    @property
    def latest(self) -> dict[str, float]:
        return self.curve[-1][1] if self.curve else {}

    @property
    def learns(self) -> bool:
        """Whether it is a training's, with a number for each step."""
        return LEARNT in self.latest

    @property
    def line(self) -> str:
        """In one line: ``train (svf-sums): 12 of 16, reward 0.312, best validation 0.480``."""
        numbers = told(self.stage, self.latest)
        return f"{self.name}: {self.done} of {self.total}" + (f", {numbers}" if numbers else "")

    @property
    def drawing(self) -> str:
        """What was learnt at the last steps, from the least of them to the most; empty for other loops."""
        values = [values[LEARNT] for _, values in self.curve if LEARNT in values][-DRAWN:]
        return sparkline(values) if len(values) > 1 else ""


def points(loop: Loop) -> list[dict[str, float]]:
    """What a loop told, a mapping for each step, with the numbers under the names that a person reads."""
    return [
        {"step": step, **{titled(loop.stage, name): value for name, value in values.items()}}
        for step, values in loop.curve
    ]


def sparkline(values: list[float]) -> str:
    """Numbers as blocks of eight heights."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(LEVELS[round((value - low) / span * (len(LEVELS) - 1))] for value in values)


class Writer:
    """The side of the stage."""

    def __init__(self, stage: str) -> None:
        self._path = path_of(stage)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = self._path.open("w", encoding="utf-8")

    def write(self, loop: str, total: int, done: int, values: dict[str, float]) -> None:
        """Tell how far a loop is. A disk that is full does not end the stage."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(json.dumps({"loop": loop, "total": total, "done": done, "values": values}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """The stage has ended: what it came to stands in its outputs."""
        with contextlib.suppress(OSError):
            self._file.close()
        forget(self._path.stem)


def path_of(stage: str) -> Path:
    return FOLDER / f"{stage}.jsonl"


def forget(stage: str) -> None:
    """Remove what a stage that was killed left."""
    with contextlib.suppress(OSError):
        path_of(stage).unlink(missing_ok=True)


def read(stage: str) -> Loop | None:
    """The loop that a stage is in; None before its first, and where nothing is told."""
    last: Loop | None = None
    for news in _lines(stage):
        if last is None or last.name != news["loop"] or news["done"] < last.done:
            last = Loop(stage, news["loop"], news["total"], 0)
        last = last.advanced(news["done"] - last.done, news["values"])
    return last


def _lines(stage: str) -> Iterator[dict]:
    with contextlib.suppress(FileNotFoundError, UserError):
        for line in read_whole(path_of(stage), "the news of a stage").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line is being written
                yield json.loads(line)
