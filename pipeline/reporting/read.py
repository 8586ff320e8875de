"""What a run left behind, read into frames: settings, scores, decisions, curves, traces, gates, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pandas as pd
import yaml
from pydantic import ConfigDict, Field

from pipeline.core.artifacts import read_examples as read_split
from pipeline.core.artifacts import read_json, read_jsonl, read_tensors
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Completion, Example
from pipeline.reporting.papers import ROWS, TITLES

DECISION = ["row", "task", "id", "domain", "predicted", "correct"]


class Cell(Section):
    """One method on one task: what is generated, scored and compared.

    base: what it is done to. method: module of ``pipeline.methods``. row: the line it fills in each table of
    ``table``. seed: of the training.
    adapter: path under ``artifacts``, without suffix.
    """

    base: str = "base"
    method: str
    row: str
    table: tuple[str, ...]
    task: str
    scorer: str
    seed: int
    adapter: str


class ReportSettings(Section):
    """resamples, seed: of the bootstrap intervals. samples: prompts shown at once, each with all its answers."""

    resamples: int
    seed: int
    samples: int


class RunSettings(Section, at=""):
    """The whole of params.yaml, as far as the report shows it.

    trained, unseen: domain to task. The methods' own settings are shown as they stand, and checked by their stages.
    bases: by kind of source. merged, searches: of profiles that have some.
    experts, baselines, ablations: what was trained on one task each, by name (ablations: by objective, then name).
    """

    model_config = ConfigDict(extra="allow")

    profile: str
    seed: int
    trained: dict[str, str]
    unseen: dict[str, str]
    cells: dict[str, Cell]
    report: ReportSettings
    svf: dict[str, Any]
    reinforce: dict[str, Any]
    lora: dict[str, Any]
    reft: dict[str, Any]
    csreft: dict[str, Any]
    classifier: dict[str, Any]
    dispatch: dict[str, Any]
    mixing: dict[str, Any]
    few_shot: dict[str, Any]
    compute: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    bases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    merged: dict[str, dict[str, Any]] = Field(default_factory=dict)
    searches: dict[str, dict[str, Any]] = Field(default_factory=dict)
    experts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = Field(default_factory=dict)
    ablations: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """As any section; the cells on other base models, a section of their own, join the others."""
        if others := value.get("recipient_cells"):
            value = {**value, "cells": {**value.get("cells", {}), **others}}
        return super().parse(value, where)

    def section(self, name: str) -> dict[str, Any]:
        """A method's section, or nothing where the file has none."""
        return getattr(self, name, {})

    @property
    def domains(self) -> dict[str, str]:
        """Task to domain: the trained tasks, then the unseen ones."""
        return {task: domain for group in (self.trained, self.unseen) for domain, task in group.items()}

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """The settings that the methods ran with, by section: theirs, the machine's, and the tasks' sizes."""
        known = ("svf", "reinforce", "lora", "reft", "csreft", "classifier", "dispatch", "mixing", "few_shot")
        baselines = dict.fromkeys(entry["method"] for entry in self.baselines.values())
        shown = [*known[:3], *(name for name in baselines if name not in known), *known[3:], "compute", "tasks"]
        return {name: self.section(name) for name in shown}

    def trained_for(self, cell: Cell) -> str:
        """Path of what was trained for a cell: of a cell that a dispatcher mixed for, the dispatcher's own adapter."""
        folder, _, rest = cell.adapter.partition("/")
        dispatcher = self.section("dispatchers").get(rest.partition("/")[0], {}) if folder == "dispatched" else {}
        return dispatcher.get("adapter", cell.adapter)

    def tables(self) -> list[str]:
        """Names of the tables that the cells fill; the papers' first, in their order."""
        known = {name: place for place, name in enumerate(TITLES)}
        names = dict.fromkeys(table for cell in self.cells.values() for table in cell.table)
        return sorted(names, key=lambda name: known.get(name, len(known)))


def read_scores(settings: RunSettings, folder: Path) -> pd.DataFrame:
    """Every cell's scores, one line per example, with the columns row, task, seed, cell, id, ... of evaluation.

    ``parsed`` becomes whether an answer could be read, and ``answer`` what was read.
    """
    frames = []
    for name, cell in settings.cells.items():
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise UserError(f"expected the scores of the cell '{name}' in {path}; run 'dvc repro score@{name}'")
        frame = pd.read_parquet(path)
        frame["answer"], frame["parsed"] = frame["parsed"], frame["parsed"].notna()
        frames.append(frame.assign(row=cell.row, task=cell.task, seed=cell.seed, cell=name))
    if not frames:
        raise UserError("params.yaml: expected at least one cell to report, got none; add one to 'cells'")
    return pd.concat(frames, ignore_index=True)


def scores_of(scores: pd.DataFrame, settings: RunSettings, table: str) -> pd.DataFrame:
    """The part of ``scores`` that fills a table: rows in the papers' order, tasks in that of params.yaml."""
    cells = [name for name, cell in settings.cells.items() if table in cell.table]
    part = scores[scores["cell"].isin(cells)]
    places = {name: place for place, name in enumerate([*ROWS, *settings.domains])}
    return part.sort_values(["row", "task"], key=lambda names: names.map(places), kind="stable")


def read_examples(settings: RunSettings, folder: Path) -> dict[str, list[Example]]:
    """The test split of every task that a cell is about."""
    tasks = dict.fromkeys(cell.task for cell in settings.cells.values())
    return {task: read_split(folder / task / "test.jsonl") for task in tasks}


def read_completions(settings: RunSettings, folder: Path) -> dict[str, dict[str, Completion]]:
    """Each cell's completions, by example."""
    rows = {name: read_jsonl(folder / f"{name}.jsonl") for name in settings.cells}
    return {name: {row["id"]: Completion(**row) for row in cell} for name, cell in rows.items()}


def read_curves(folder: Path) -> dict[str, pd.DataFrame]:
    """Learning curves by name: step, train, validation, chosen, objective. Of a sweep, the pair that was kept."""
    frames = {path.stem: pd.DataFrame(read_jsonl(path)) for path in sorted(folder.glob("*.jsonl"))}
    return {name: kept_of_sweep(frame) for name, frame in frames.items() if len(frame)}


def kept_of_sweep(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of the rate and clip that did best on validation; the whole curve where nothing was swept."""
    pair = [name for name in ("learning_rate", "clip") if name in curve]
    for name in pair:
        curve = curve[curve[name] == curve.loc[curve["chosen"].astype(bool), name].iloc[0]]
    return curve.reset_index(drop=True)


def read_provenance(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Where each trained thing comes from, by its path under ``artifacts`` without suffix, and its ``bytes``."""
    found = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.safetensors")):
        meta = read_tensors(path)[1]
        found[f"{path.parent.name}/{path.stem}"] = {**meta.get("provenance", {}), "bytes": path.stat().st_size}
    return found


def read_dispatch(settings: RunSettings, folder: Path) -> pd.DataFrame:
    """Every dispatcher's decisions: row (the dispatcher), task (``trained`` or ``unseen``), domain, predicted, ...

    The remaining columns are those of a scored cell, so that decisions are compared as answers are: a decision is
    always read, and no token is generated for it.
    """
    lines = []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: (path.stem != "prompt", path.stem)):
        for decision in read_jsonl(path):
            known = decision["task"] in settings.trained.values()
            lines.append(
                {
                    "row": path.stem,
                    "task": "trained" if known else "unseen",
                    "id": f"{decision['task']}/{decision['id']}",
                    "domain": decision["domain"],
                    "predicted": decision["predicted"],
                    "correct": decision["predicted"] == decision["domain"],
                }
            )
    frame = pd.DataFrame(lines, columns=DECISION)
    return frame.assign(seed=settings.seed, cell=frame["row"], parsed=True, finished=True, tokens=0)


def read_mixtures(folder: Path) -> dict[str, dict[str, Any]]:
    """What each mix of SVF experts ended with (the last row of its trace), by name; with its ``task`` and ``strategy``.

    ``trace`` are the rows before. An adaptation that only selects one of other experts has a trace, too, and mixes
    nothing.
    """
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        rows = read_jsonl(path)
        final = [row for row in rows if row.get("final")]
        if final and all(expert.startswith("svf-") for expert in final[-1]["experts"]):
            provenance = read_tensors(path.with_suffix(".safetensors"))[1].get("provenance", {})
            about = {"task": provenance.get("task", path.stem), "strategy": provenance.get("method")}
            found[path.stem] = {**final[-1], **about, "trace": rows[:-1]}
    return found


def read_spectra(folder: Path) -> dict[str, pd.DataFrame]:
    """The shares of the top singular components, by base model: of, module, layer, top, share."""
    prefix = "spectra-"
    return {path.stem.removeprefix(prefix): pd.read_parquet(path) for path in sorted(folder.glob(f"{prefix}*.parquet"))}


def read_gates(folders: Sequence[Path]) -> pd.DataFrame | None:
    """The router's mean gate per skill (rows) and subspace (columns), on validation prompts; None without a router."""
    paths = [folder / "gates.jsonl" for folder in folders if (folder / "gates.jsonl").is_file()]
    rows = [row for path in paths for row in read_jsonl(path)]
    if not rows:
        return None
    gates = pd.DataFrame([row["gates"] for row in rows], dtype=float)
    return gates.groupby([row["skill"] for row in rows], sort=False).mean()


def read_published(folder: Path) -> dict[str, Any]:
    """The papers' numbers, by file."""
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}


def read_records(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The records of the stages that ran here, by stage, in the order they started.

    None for what was fetched from a cache. The report's own is of the report before this one, and left out.
    """
    records = [read_json(path) for path in sorted(folder.glob("*.json"))]
    records = sorted(records, key=lambda record: record["started_unix_seconds"])
    return {record["stage"]: record for record in records if record["stage"] != "report"}


def read_needs(lock: Path, records: Mapping[str, Any]) -> dict[str, list[str]]:
    """The stages that DVC's lock file knows, each with those whose outputs it reads; none where there is no file.

    The file keeps stages of other settings, too: of two that write the same path, the one that ran last made it.
    """
    if not lock.is_file():
        return {}
    locked = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    # Under the names they are called by, as their records are: several entries of dvc.yaml may run one stage.
    stages = {(stage.get("cmd", "").split()[3:4] or [name])[0]: stage for name, stage in locked.items()}
    places = {name: place for place, name in enumerate(records)}
    ordered = sorted(stages, key=lambda name: places.get(name, -1))
    makers = {out["path"]: name for name in ordered for out in stages[name].get("outs", ())}

    def maker(path: str) -> str | None:
        """The stage that writes a path, or the folder it stands in."""
        return next((makers[str(one)] for one in (Path(path), *Path(path).parents) if str(one) in makers), None)

    return {
        name: list(dict.fromkeys(found for dep in stage.get("deps", ()) if (found := maker(dep["path"]))))
        for name, stage in stages.items()
    }


@dataclass(frozen=True)
class Run:
    """Everything a run left that the report shows; the functions of this module say what each is.

    What a report has no use for, or a published run has not kept, is left empty.
    """

    settings: RunSettings
    scores: pd.DataFrame
    examples: Mapping[str, Sequence[Example]]
    provenance: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any]
    published: Mapping[str, Any]
    completions: Mapping[str, Mapping[str, Completion]] = field(default_factory=dict)
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    decisions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DECISION))
    mixtures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spectra: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    gates: pd.DataFrame | None = None
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)
