"""What a run left, read into frames: scores, answers, decisions, curves, traces, gates, costs.

Every function is told what to read by the plan, and opens nothing else. A planned file that is missing is a
``UserError`` which names the stage that makes it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.artifacts import read_examples as read_split
from pipeline.core.artifacts import read_json, read_jsonl, read_tensors
from pipeline.core.errors import UserError
from pipeline.core.reading import formed, read_yaml
from pipeline.core.types import Completion, Example
from pipeline.evaluation.answers import with_positions
from pipeline.reporting.papers import ROWS
from pipeline.reporting.planned import BASE, SELECT, Cell, Plan, RunSettings

SWEPT = ("learning_rate", "clip")  # columns of a curve: the pair that its row was trained with
RULE = ("rule", "id", "value")
DECISION = ["row", "task", "id", "domain", "predicted", "correct"]


@dataclass(frozen=True)
class Run:
    """Everything that the report shows of a run; the functions of this module say what each part is.

    What a report has no use for, or a published run has not kept, is empty.
    """

    plan: Plan
    settings: RunSettings
    scores: pd.DataFrame
    examples: Mapping[str, Sequence[Example]]
    provenance: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any]
    published: Mapping[str, Any]
    completions: Mapping[str, Mapping[str, Completion]] = field(default_factory=dict)
    rules: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    trained_on: Mapping[str, int] = field(default_factory=dict)
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    sweeps: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    decisions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DECISION))
    mixtures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spectra: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    gates: pd.DataFrame | None = None
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)


def planned(path: Path, stage: str) -> Path:
    """A file that the plan names. Raises UserError where it is not there."""
    if not path.exists():
        raise UserError(f"expected {path}, which the plan names; run 'dvc repro {stage}' to make it")
    return path


class Artifacts:
    """Folders of ``artifacts``, each by its name: where the plan's paths lead."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = {folder.name: folder for folder in folders}

    def has(self, path: str) -> bool:
        """Whether a path of the plan leads into one of the folders."""
        return path.partition("/")[0] in self.folders

    def find(self, path: str, stage: str) -> Path:
        """The file at a path of the plan. Raises UserError where it is not there, or its folder is not one of these."""
        folder, _, name = path.partition("/")
        if folder not in self.folders:
            known = ", ".join(self.folders)
            raise UserError(f"expected a folder of this stage's ({known}), got that of {path}; name it in dvc.yaml")
        return planned(self.folders[folder] / name, stage)


# ---- cells ----------------------------------------------------------------------------------------------------------


def read_scores(cells: Mapping[str, Cell], folder: Path, examples: Mapping[str, Sequence[Example]]) -> pd.DataFrame:
    """The scores of some cells, one line per example, with the columns that ``pipeline.evaluation.intervals`` takes.

    ``parsed`` becomes whether an answer could be read, and ``answer`` what was read; ``right`` and ``picked`` are those
    of ``pipeline.evaluation.answers.with_positions``. examples: of each task.
    """
    frames = []
    for name, cell in cells.items():
        frame = pd.read_parquet(planned(folder / f"{name}.parquet", f"score@{name}"))
        frame["answer"], frame["parsed"] = frame["parsed"], frame["parsed"].notna()
        frame["marked"] = frame.get("marked", True)
        frames.append(frame.assign(row=cell.row, task=cell.task, seed=cell.seed, cell=name))
    if not frames:
        raise UserError("params.yaml: expected at least one cell to report, got none; add a table to 'tables'")
    return with_positions(pd.concat(frames, ignore_index=True), examples)


def read_rules(tasks: Collection[str], folder: Path) -> dict[str, pd.DataFrame]:
    """Of some tasks, what each rule that needs no model is right for: rule, id, value. folder: of the scores."""
    return {
        task: pd.read_parquet(planned(folder / f"heuristics/{task}.parquet", f"heuristics@{task}"))[list(RULE)]
        for task in sorted(tasks)
    }


def scores_of(run: Run, table: str) -> pd.DataFrame:
    """The scores that fill a table: rows in the papers' order, tasks in that of params.yaml."""
    part = run.scores[run.scores["cell"].isin(run.plan.cells_of(table))]
    places = {name: place for place, name in enumerate([*ROWS, *run.settings.domains])}
    return part.sort_values(["row", "task"], key=lambda names: names.map(places), kind="stable")


def read_examples(plan: Plan, folder: Path) -> dict[str, list[Example]]:
    """The test split of every task that a cell is about."""
    tasks = dict.fromkeys(cell.task for cell in plan.cells.values())
    return {task: read_split(planned(folder / task / "test.jsonl", f"prepare@{task}")) for task in tasks}


def count_training(plan: Plan, folder: Path) -> dict[str, int]:
    """How many examples the training split of each prepared task has."""
    counts = {}
    for task in plan.prepare:
        with planned(folder / task / "train.jsonl", f"prepare@{task}").open(encoding="utf-8") as lines:
            counts[task] = sum(1 for _ in lines)
    return counts


def read_completions(plan: Plan, folder: Path) -> dict[str, dict[str, Completion]]:
    """Each cell's completions, by example."""
    rows = {name: read_jsonl(planned(folder / f"{name}.jsonl", f"generate@{name}")) for name in plan.cells}
    return {name: {row["id"]: Completion(**row) for row in cell} for name, cell in rows.items()}


# ---- what was trained -----------------------------------------------------------------------------------------------


def read_curves(plan: Plan, artifacts: Artifacts) -> dict[str, pd.DataFrame]:
    """Learning curves by name: step, train, validation, chosen, objective; of a sweep, all its pairs."""
    makers = {Path(path).name: stage for path, stage in plan.adapters.items()}
    frames = {name: pd.DataFrame(read_jsonl(artifacts.find(path, makers[name]))) for name, path in plan.curves.items()}
    return {name: frame for name, frame in frames.items() if len(frame)}


def kept_curves(curves: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Curves without the pairs of a sweep that were not kept."""
    return {name: kept_of_sweep(curve) for name, curve in curves.items()}


def swept_curves(curves: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Those of some curves that are of a sweep."""
    return {name: curve for name, curve in curves.items() if set(SWEPT) & set(curve)}


def kept_of_sweep(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of the rate and clip that did best on validation; the whole curve where nothing was swept."""
    pair = [name for name in SWEPT if name in curve]
    for name in pair:
        curve = curve[curve[name] == curve.loc[curve["chosen"].astype(bool), name].iloc[0]]
    return curve.reset_index(drop=True)


def read_base(path: Path) -> dict[str, Any]:
    """Where the base model comes from, and the ``bytes`` of its adapter."""
    return {**read_tensors(path)[1].get("provenance", {}), "bytes": path.stat().st_size}


def read_provenance(plan: Plan, artifacts: Artifacts) -> dict[str, dict[str, Any]]:
    """Where each adapter of the base model that stands in the folders comes from, by its path, and its ``bytes``."""
    paths = {
        path: artifacts.find(f"{path}.safetensors", stage)
        for path, stage in plan.adapters.items()
        if artifacts.has(path)
    }
    return {path: read_base(file) for path, file in paths.items()}


def read_mixtures(plan: Plan, artifacts: Artifacts) -> dict[str, dict[str, Any]]:
    """What each search for α ended with (the last row of its trace), by the adapter's name.

    Added to it: ``row``, ``task``, ``seed``, ``strategy``, ``base`` and ``adapter`` of the plan, and ``trace``, the
    rows before. A search that selects one of the experts has a trace, too, but mixes nothing, and is left out.
    """
    mixtures = {}
    for key, item in sorted(plan.adapt.items()):
        if item.strategy == SELECT:
            continue
        *trace, last = read_jsonl(artifacts.find(f"{item.adapter}.jsonl", f"adapt@{key}")) or [{}]
        if last.get("final"):
            about = {name: getattr(item, name) for name in ("row", "task", "seed", "strategy", "base", "adapter")}
            mixtures[Path(item.adapter).name] = {**last, **about, "trace": trace}
    return mixtures


def read_dispatch(plan: Plan, settings: RunSettings, artifacts: Artifacts) -> pd.DataFrame:
    """Every dispatcher's decisions: row (the dispatcher), task (``trained`` or ``unseen``), domain, predicted, ...

    The remaining columns are those of a scored cell, so that decisions are compared as answers are: a decision is
    always read, and no token is generated for it.
    """
    trained = settings.tasks_of("trained")
    lines = [
        {
            "row": item.row,
            "task": "trained" if decision["task"] in trained else "unseen",
            "id": f"{decision['task']}/{decision['id']}",
            "domain": decision["domain"],
            "predicted": decision["predicted"],
            "correct": decision["predicted"] == decision["domain"],
            "seed": item.seed,
            "cell": key,
        }
        for key, item in sorted(plan.dispatch.items(), key=lambda entry: (entry[1].row != "prompt", entry[0]))
        if item.base == BASE
        for decision in read_jsonl(artifacts.find(f"dispatched/{key}.jsonl", f"dispatch@{key}"))
    ]
    return pd.DataFrame(lines, columns=[*DECISION, "seed", "cell"]).assign(parsed=True, finished=True, tokens=0)


def read_spectra(plan: Plan, curves: Path) -> dict[str, pd.DataFrame]:
    """The shares of the top singular components, by base model: of, module, layer, top, share."""
    return {key: pd.read_parquet(planned(curves / f"spectra-{key}.parquet", f"spectra@{key}")) for key in plan.spectra}


def read_gates(plan: Plan, artifacts: Artifacts) -> pd.DataFrame | None:
    """The router's mean gate per skill (rows) and subspace (columns), on validation prompts, of the first such row.

    None where no row has a router.
    """
    makers = plan.adapters
    for adapters in plan.gates.values():
        rows = [row for path in adapters for row in read_jsonl(artifacts.find(f"{path}.gates.jsonl", makers[path]))]
        if rows:
            return mean_gates(rows)
    return None


def mean_gates(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The mean gate per skill (rows) and subspace (columns). rows: ``skill`` and ``gates``, one for each prompt."""
    gates = pd.DataFrame([row["gates"] for row in rows], dtype=float)
    return gates.groupby([row["skill"] for row in rows], sort=False).mean()


# ---- the papers, and how the run went -------------------------------------------------------------------------------


def read_published(folder: Path) -> dict[str, Any]:
    """The papers' numbers, by file."""
    return {path.stem: read_yaml(path) for path in sorted(folder.glob("*.yaml"))}


def read_records(folder: Path, stages: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """The records of those of some stages that ran here, by stage, in the order they started.

    A stage whose outputs were fetched from a cache has none.
    """
    paths = [path for stage in sorted(stages) if (path := folder / f"{stage}.json").is_file()]
    records = {}
    for path in paths:
        record = read_json(path)
        with formed(path, "the record of a stage"):
            records[float(record["started_unix_seconds"]), path.stem] = record
    return {stage: record for (_, stage), record in sorted(records.items())}


def read_needs(lock: Path, records: Mapping[str, Any], stages: Collection[str]) -> dict[str, list[str]]:
    """Those of some stages that DVC's lock file knows, each with the stages whose outputs it reads.

    None where there is no file. Of two stages that write the same path, the one that ran last made it.
    """
    if not lock.is_file():
        return {}
    locked = (read_yaml(lock) or {}).get("stages", {})
    known = {name: stage for name, stage in locked.items() if name in stages}
    places = {name: place for place, name in enumerate(records)}
    ordered = sorted(known, key=lambda name: places.get(name, -1))
    makers = {out["path"]: name for name in ordered for out in known[name].get("outs", ())}

    def maker(path: str) -> str | None:
        """The stage that writes a path, or the folder it stands in."""
        return next((makers[str(each)] for each in (Path(path), *Path(path).parents) if str(each) in makers), None)

    return {
        name: list(dict.fromkeys(before for dep in stage.get("deps", ()) if (before := maker(dep["path"]))))
        for name, stage in known.items()
    }
