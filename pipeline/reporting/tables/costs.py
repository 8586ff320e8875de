"""What the runs of the stages cost: seconds, memory, commits, settings.

All of it varies between two equal runs, so it stands in a folder of its own, ``reports/runs``; every other file of the
report has the same bytes each time. A stage whose output was fetched from a cache has no record and is shown without.
"""

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.papers import DISPATCHERS, PUBLISHED_MODEL, PUBLISHED_UNSEEN
from pipeline.reporting.read import Run
from pipeline.reporting.tables.listing import Listing

# Steps that cost the same however many prompts follow; a stage's other steps are its work.
ONCE = ("load ", "write ")


def cost_table(records: Mapping[str, Mapping[str, Any]]) -> Listing:
    """Seconds and memory by kind of stage."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for name, record in records.items():
        kinds.setdefault(name.partition("@")[0], []).append(record)
    rows = tuple(
        (
            kind,
            len(group),
            round(sum(record["seconds"] for record in group), 1),
            round(max(record["seconds"] for record in group), 1),
            round(max(record["peak_memory_bytes"] for record in group) / 2**20),
        )
        for kind, group in kinds.items()
    )
    columns = ("stage", "runs", "seconds, all", "seconds, longest", "peak memory, MiB")
    return Listing("cost", "What it cost", columns, rows, cost_note(list(records.values())))


def cost_note(records: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on the cost of the whole run."""
    if not records:
        return "No stage ran here: all outputs were taken from a cache."
    minutes = sum(record["seconds"] for record in records) / 60
    most = max(record["peak_memory_bytes"] for record in records) / 2**20
    hosts = sorted({f"{record['host']['cores']} cores, {record['host']['machine']}" for record in records})
    return (
        f"{len(records)} stages, {minutes:.1f} minutes in all (several may run side by side), at most {most:.0f} MiB "
        f"in one stage; on {' and '.join(hosts)}."
    )


def stages_table(records: Mapping[str, Mapping[str, Any]]) -> Listing:
    """Every stage that ran here, as a file for other programs; the page says more of each."""
    rows = tuple(
        (
            name,
            round(record["seconds"], 1),
            round(record["peak_memory_bytes"] / 2**20),
            moment(record),
            record.get("commit"),
        )
        for name, record in records.items()
    )
    return Listing("stages", "Every stage", ("stage", "seconds", "peak memory, MiB", "started (UTC)", "commit"), rows)


def passes_table(run: Run) -> Listing:
    """Table 3: seconds per prompt of the first pass (naming the domain) and the second (answering), by unseen task."""
    papers = run.published.get("transformer2", {}).get("table3_two_pass_seconds", {}).get(PUBLISHED_MODEL, {})
    cells: dict[tuple[str, str], list[str]] = {}
    for name, cell in run.plan.cells.items():
        if cell.row in DISPATCHERS:
            cells.setdefault((cell.task, cell.row), []).append(name)
    rows: list[tuple[str | int | float | None, ...]] = []
    compared: list[str] = []
    for (task, row), names in cells.items():
        first = mean_of(first_pass(run, name) for name in names)
        second = mean_of(seconds_each(run.records.get(f"generate@{name}"), len(run.examples[task])) for name in names)
        share = None if first is None or second is None else round(100 * first / second, 1)
        paper = papers.get(PUBLISHED_UNSEEN.get(run.settings.domains.get(task, ""), ""), {}).get("ratio_percent")
        if row == "prompt" and share is not None and paper is not None:
            compared.append(f"{share:g} % on {task} ({paper:g} % on the paper's benchmark of the domain)")
        timed = paper if row == "prompt" else "not timed"
        rows.append((task, DISPATCHERS[row], len(run.examples[task]), first, second, share, timed))
    columns = ("task", "first pass by", "prompts", "first, s a prompt", "second, s a prompt", "first, % of second")
    note = (
        "Seconds of naming and of answering, loading left out. The first pass is timed over the prompts of all tasks "
        "together, the second on the task's own. The paper's shares are of another model, and of a first pass that "
        "generates text."
    )
    if compared:
        note = f"Of the second pass, the first by a prompt costs here {', '.join(compared)}. {note}"
    return Listing("table3", "Table 3. What the first pass costs", (*columns, "paper, %"), tuple(rows), note)


def first_pass(run: Run, cell: str) -> float | None:
    """Seconds per prompt that the dispatcher of a cell took; None without its record."""
    dispatcher = run.plan.cells[cell].adapter.split("/")[1]  # dispatched/<dispatcher>/<task>
    decided = int((run.decisions["cell"] == dispatcher).sum()) if len(run.decisions) else 0
    return seconds_each(run.records.get(f"dispatch@{dispatcher}"), decided)


def mean_of(seconds: Iterable[float | None]) -> float | None:
    """The mean over seeds of what is known; None where nothing is."""
    known = [value for value in seconds if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def seconds_each(record: Mapping[str, Any] | None, count: int) -> float | None:
    """Seconds of a stage's work for each of ``count`` prompts; None without its record."""
    if record is None or count == 0:
        return None
    work = [part["seconds"] for part in record.get("steps", ()) if not part["name"].startswith(ONCE)]
    return round((sum(work) if work else record["seconds"]) / count, 4)


@dataclass(frozen=True)
class StageRun:
    """A stage as the page shows it. record: None where its outputs were fetched. needs: the stages it comes from."""

    name: str
    needs: tuple[str, ...]
    record: Mapping[str, Any] | None

    @property
    def started(self) -> str | None:
        return moment(self.record) if self.record else None

    @property
    def settings(self) -> str:
        return json.dumps(self.record["arguments"], indent=1, ensure_ascii=False) if self.record else ""


def stage_runs(run: Run) -> list[StageRun]:
    """The stages behind the report's numbers, in the order they ran; those without a record last.

    They are the scoring of each cell and all it comes from.
    """
    stages = behind([f"{kind}@{name}" for name in run.plan.cells for kind in ("score", "generate")], run.needs)
    if not run.needs:  # without a lock file, every stage that ran here is shown
        stages |= dict.fromkeys(run.records)
    places = {name: place for place, name in enumerate(run.records)}
    names = sorted(stages, key=lambda name: (places.get(name, len(places)), name))
    return [StageRun(name, tuple(run.needs.get(name, ())), run.records.get(name)) for name in names]


def behind(stages: Iterable[str], needs: Mapping[str, Sequence[str]]) -> dict[str, None]:
    """Some stages and all that they come from, as the keys of a dictionary. needs: see ``read.read_needs``."""
    todo = list(stages)
    reached: dict[str, None] = {}
    while todo:
        name = todo.pop()
        if name not in reached:
            reached[name] = None
            todo += needs.get(name, ())
    return reached


def moment(record: Mapping[str, Any]) -> str:
    """When a stage started, in UTC."""
    started = datetime.datetime.fromtimestamp(record["started_unix_seconds"], datetime.UTC)
    return started.strftime("%Y-%m-%d %H:%M:%S")
