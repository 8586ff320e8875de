"""What a run would make, and about how long that takes: the plan beside the lock file and earlier runs' records."""

import math
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import yaml

from pipeline.core.artifacts import read_json
from pipeline.core.errors import UserError
from pipeline.core.reading import formed
from pipeline.flow.stages import Stage

NOTHING: Mapping[str, float] = {}


@dataclass(frozen=True)
class Kind:
    """The stages of one entry of dvc.yaml.

    new: those that the lock file does not know, or knows with another command. seconds: what all of them take, as their
    own records say, or those of their kind; None where there is no record.
    """

    entry: str
    count: int
    new: int
    seconds: float | None


def kinds(
    stages: Sequence[Stage], graph: Path, *, commands: Mapping[str, str], seconds: Mapping[str, float]
) -> list[Kind]:
    """The stages by entry, as ``graph`` orders them. commands, seconds: by stage, of the lock file and earlier runs."""
    entries = re.findall(r"^  (\w+):", graph.read_text(encoding="utf-8"), re.MULTILINE)
    by_entry: dict[str, list[Stage]] = {entry: [] for entry in entries}
    for stage in stages:
        by_entry.setdefault(stage.entry, []).append(stage)
    usual = {
        entry: [seconds[one.record] for one in group if one.record in seconds] for entry, group in by_entry.items()
    }
    return [
        Kind(
            entry=entry,
            count=len(group),
            new=sum(commands.get(stage.name) != " ".join(stage.command) for stage in group),
            seconds=sum(seconds.get(one.record, mean(usual[entry])) for one in group) if usual[entry] else None,
        )
        for entry, group in by_entry.items()
        if group
    ]


@dataclass
class Waiting:
    """What is left of a run, and about how long it takes.

    total, ended: how many stages. seconds: what each stage that may run is likely to take; NaN where nothing is known.
    """

    total: int
    seconds: dict[str, float]
    jobs: int
    ended: int = 0

    @classmethod
    def of(
        cls, needs: Mapping[str, Sequence[str]], changed: Collection[str], known: Mapping[str, float], jobs: int
    ) -> "Waiting":
        """needs, changed: of the graph, in its order. known: seconds of earlier runs; a new stage takes its kind's."""
        stale: set[str] = set()
        for stage, before in needs.items():
            if stage in changed or stale.intersection(before):
                stale.add(stage)
        kinds: dict[str, list[float]] = {}
        for stage, took in known.items():
            kinds.setdefault(stage.partition("@")[0], []).append(took)
        usual = {kind: mean(several) for kind, several in kinds.items()}
        seconds = {one: known.get(one, usual.get(one.partition("@")[0], math.nan)) for one in needs if one in stale}
        return cls(len(needs), seconds, jobs)

    @property
    def stale(self) -> list[str]:
        """The stages that may run, in the graph's order."""
        return list(self.seconds)

    def end(self, stage: str) -> None:
        """A stage has ended."""
        self.ended += 1
        self.seconds.pop(stage, None)

    def left(self, running: Mapping[str, float], at_least: Mapping[str, float] = NOTHING) -> str:
        """The time that is left, in words; nothing where it is not known.

        running: since when, by the same clock. at_least: seconds that a running stage still takes by its own account.
        """
        now = time.monotonic()
        known = [
            max(at_least.get(stage, 0.0), 0.0 if math.isnan(took) else took - (now - running.get(stage, now)))
            for stage, took in self.seconds.items()
        ]
        if not known or any(math.isnan(took) for stage, took in self.seconds.items() if stage not in at_least):
            return ""
        return f", about {_time(max(sum(known) / self.jobs, max(known)))}"

    def said(self, running: Mapping[str, float], at_least: Mapping[str, float] = NOTHING) -> str:
        """How far it is."""
        left = self.left(running, at_least)
        return f"{self.ended} of {self.total} stages{left}{' left' if left else ''}"


def locked_commands(lock: Path) -> dict[str, str]:
    """The command of each stage that DVC's lock file knows; none where there is no file."""
    if not lock.is_file():
        return {}
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where there is one: the file is long
        locked = yaml.load(lock.read_text(encoding="utf-8"), Loader=loader)
        return {name: " ".join(stage["cmd"].split()) for name, stage in locked["stages"].items()}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(f"expected DVC's lock file in {lock}, got another text; run 'git checkout {lock}'") from None


def recorded_seconds(records: Path) -> dict[str, float]:
    """The seconds of each stage that ran here, the last time it did."""
    known = {}
    for path in sorted(records.glob("*.json")):
        with formed(path, "the record of a stage", "remove it"):
            known[path.stem] = float(read_json(path)["seconds"])
    return known


def counted(found: Sequence[Kind], work: Mapping[str, tuple[int | None, int | None]]) -> list[str]:
    """Lines on the stages. work: by entry, the prompts answered and the most tokens generated; None: not known."""
    head = ("stages", "", "new", "prompts", "tokens at most", "time")
    rows: list[tuple[str, ...]] = [head]
    for kind in found:
        prompts, tokens = work.get(kind.entry, (0, 0))
        numbers = [("all" if value is None else f"{value:,}" if value else "") for value in (prompts, tokens)]
        rows.append((kind.entry, str(kind.count), str(kind.new or ""), *numbers, _time(kind.seconds)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return [
        "  ".join(f"{cell:{'<' if place == 0 else '>'}{widths[place]}}" for place, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def summed(found: Sequence[Kind], jobs: int) -> str:
    """A sentence on the whole."""
    totals = Counter({"stages": sum(kind.count for kind in found), "new": sum(kind.new for kind in found)})
    timed = [kind.seconds for kind in found if kind.seconds is not None]
    untimed = [kind.entry for kind in found if kind.seconds is None]
    said = f"{totals['stages']} stages, {totals['new']} of them new against the last run"
    if timed:
        said += f"; all of them about {_time(sum(timed))}, {jobs} side by side about {_time(sum(timed) / jobs)}"
    if not timed:
        return f"{said}; no record yet of how long they take"
    return said + (f" (no record yet of {', '.join(untimed)})" if untimed else "")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
