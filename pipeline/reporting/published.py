"""Runs that were published: results, curves and expert vectors, small enough to be committed, read and shown.

A published run is a folder of ``reports/published``, written whole by ``pipeline.reporting.publish``:

    run.json              what it was: see ``Published.about``
    params.yaml           all its settings
    plan.yaml             all that was planned, with the published cells, heads, judges and experiments alone
    scores.csv            a line for each answer, see ``COLUMNS`` and ``FURTHER``; none without cells
    completions.jsonl.xz  every answer as it was written, with its cell and the example's id; the examples themselves
                          can be made again by the stage prepare
    rules.jsonl.xz        what rules that need no model are right for: task, rule, id, value
    adapted/<name>.jsonl  the traces of searches for α
    curves/<name>.jsonl   the learning curves of what the cells used
    adapters/<path>.safetensors   what was trained, where it is small: files that ``load_adapter`` reads
    heads/<key>.json, .labels.jsonl   of classification heads: what each is, and what it labelled
    judged/<key>.json     what judges preferred of a cell's answers, and how often they agreed with GPT-4
    experiments/<key>/    what ``compare_skills`` made of the run, from answers and gates, which are not kept
    metrics.json, tables/ what ``scores.csv`` comes to, for other programs and for people

The report computes its numbers from ``scores.csv``, the labels and the preferences, as it does those of its own run. It
shows experiments as they were written, and never reads ``metrics.json`` and ``tables/``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.artifacts import read_json, read_jsonl
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.core.types import Completion
from pipeline.reporting.compressed import read_lines
from pipeline.reporting.planned import Cell, Plan, RunSettings, read_plan
from pipeline.reporting.read import RULE, Artifacts, Run, kept_curves, read_mixtures, swept_curves
from pipeline.reporting.site import Figure
from pipeline.reporting.tables.further import read_judged
from pipeline.reporting.tables.heads import read_heads
from pipeline.reporting.tables.listing import Listing, read_listing

FORMAT = 3
COMPLETIONS, RULES, SEARCHES = "completions.jsonl.xz", "rules.jsonl.xz", "adapted"
NO_SCORES = pd.DataFrame(columns=["row", "task"])  # of a run that has no cells
COLUMNS = {"cell": str, "id": str, "correct": bool, "parsed": bool, "finished": bool, "tokens": int}
# Further columns of scores.csv, with what stands in for one that a run has not: whether the answer stood where it was
# asked for, and the positions of the right choice and of the one that was read.
FURTHER: Mapping[str, tuple[str, Any]] = {
    "marked": ("bool", True),
    "right": ("Int64", pd.NA),
    "picked": ("Int64", pd.NA),
}
ABOUT = ("format", "commits", "base", "adapters", "data", "device", "versions", "seconds", "command")


@dataclass(frozen=True)
class Experiment:
    """What an experiment on skills came to: its claims, tables and figures."""

    key: str
    claims: tuple[str, ...]
    listings: tuple[Listing, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Published:
    """A published run. name: of its folder. run: what the report shows of any run, without prompts and answers.

    heads: of ``tables.heads.read_heads``. judged: of ``tables.further.read_judged``.
    about: what it was, by these keys:
        format      a number
        commits     of the code that its stages ran, with a plus where the settings were not the commit's
        base        provenance and sha256 of the base model
        adapters    the same of all that was trained, by path
        data        rows and sha256 of each task's splits
        device, versions (of libraries), seconds (of each stage)
        command     what makes the run again, in a project of the same code
    """

    name: str
    about: Mapping[str, Any]
    run: Run
    heads: Sequence[Mapping[str, Any]] = ()
    experiments: Sequence[Experiment] = ()
    judged: Sequence[Mapping[str, Any]] = ()

    @property
    def seeds(self) -> list[int]:
        """Of what was trained."""
        return sorted({made["seed"] for made in self.about["adapters"].values() if made.get("seed") is not None})

    @property
    def hours(self) -> float:
        """What its stages took, one after the other."""
        return sum(self.about["seconds"].values()) / 3600

    @property
    def tables(self) -> list[str]:
        """The tables that the run's cells fill, without those whose cells all stand in earlier ones."""
        kept: list[str] = []
        for key in self.run.plan.tables:
            if any(not set(cell.tables).intersection(kept) for cell in self.run.plan.cells_of(key).values()):
                kept.append(key)
        return kept

    @property
    def facts(self) -> dict[str, str]:
        """What it was, in a few words each."""
        about, settings = self.about, self.run.settings
        prompts = ", ".join(f"{task} {splits['test']['rows']}" for task, splits in about["data"].items())
        device = about["device"]
        return {
            "base model": f"{self.run.base['base']}, sha256 {about['base']['sha256'][:12]}",
            "code": f"commit {', '.join(about['commits']) or 'unknown'}",
            "profile": settings.profile,
            "device": f"{device['device']}, {device['cores']} cores, {device['machine']}, {device['dtype']}",
            "seeds": ", ".join(str(seed) for seed in self.seeds) or "none",
            "test prompts": prompts,
            "cost": f"{self.hours:.2g} hours, {len(about['seconds'])} stages one after the other",
        }


def read_published_runs(folder: Path, papers: Mapping[str, Any]) -> list[Published]:
    """All runs of a folder, by name; none where it is not there. papers: the papers' numbers."""
    return [read_one(path.parent, papers) for path in sorted(folder.glob("*/run.json"))]


def read_one(folder: Path, papers: Mapping[str, Any]) -> Published:
    """The published run of a folder. UserError where it is damaged."""
    about = read_json(folder / "run.json")
    missing = [key for key in ABOUT if not isinstance(about, dict) or key not in about]
    if missing or about["format"] != FORMAT:
        problem = f"none of '{missing[0]}'" if missing else f"format {about['format']}"
        raise UserError(
            f"expected a published run of format {FORMAT} in {folder}, got {problem}; publish it again, or remove it"
        )
    plan = read_plan(folder / "plan.yaml")
    curves = read_curves(folder / "curves", about["adapters"])
    rows = {task: splits["train"]["rows"] for task, splits in about["data"].items() if "train" in splits}
    run = Run(
        plan=plan,
        settings=RunSettings.read(read_params(folder / "params.yaml"), {}),
        scores=read_scores(plan.cells, folder / "scores.csv") if plan.cells else NO_SCORES,
        examples=dict.fromkeys(about["data"], ()),
        provenance=about["adapters"],
        base=about["base"],
        published=papers,
        rules=read_rules(folder / RULES),
        trained_on=rows,
        curves=kept_curves(curves),
        sweeps=swept_curves(curves),
        mixtures=read_searches(plan, folder / SEARCHES),
    )
    return Published(
        name=folder.name,
        about=about,
        run=run,
        heads=read_heads(folder / "heads", plan.train_head),
        experiments=[read_experiment(folder / "experiments" / key) for key in sorted(plan.compare_skills)],
        judged=read_judged(folder / "judged", plan.judge),
    )


def read_curves(folder: Path, adapters: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The learning curves of some adapters, by name, of a sweep with all its pairs; a mixture has none."""
    paths = sorted(folder / f"{Path(adapter).name}.jsonl" for adapter in adapters)
    frames = {path.stem: pd.DataFrame(read_jsonl(path)) for path in paths if path.is_file()}
    return {name: frame for name, frame in frames.items() if len(frame)}


def read_rules(path: Path) -> dict[str, pd.DataFrame]:
    """What rules that need no model are right for, by task; none where the run has kept none."""
    if not path.is_file():
        return {}
    frame = pd.DataFrame(read_lines(path), columns=["task", *RULE])
    return {str(task): part[list(RULE)].reset_index(drop=True) for task, part in frame.groupby("task")}


def read_searches(plan: Plan, folder: Path) -> dict[str, dict[str, Any]]:
    """What the searches for α ended with whose traces are kept, as ``read.read_mixtures`` returns it."""
    kept = {key: item for key, item in plan.adapt.items() if (folder / f"{Path(item.adapter).name}.jsonl").is_file()}
    return read_mixtures(plan.model_copy(update={"adapt": kept}), Artifacts([folder]))


def read_answers(folder: Path) -> dict[str, dict[str, Completion]]:
    """The answers of a published run, by cell and example; none where it has kept none."""
    found: dict[str, dict[str, Completion]] = {}
    for row in read_lines(folder / COMPLETIONS) if (folder / COMPLETIONS).is_file() else ():
        cell = row.pop("cell")
        found.setdefault(cell, {})[row["id"]] = Completion(**row)
    return found


def read_experiment(folder: Path) -> Experiment:
    """What the stage ``compare_skills`` wrote."""
    lines = (folder / "claims.md").read_text(encoding="utf-8").splitlines()
    tables = [path.stem for path in sorted(folder.glob("*.csv")) if path.with_suffix(".md").is_file()]
    drawn = [Figure(path.stem, path.read_text(encoding="utf-8"), "") for path in sorted(folder.glob("*.svg"))]
    return Experiment(
        key=folder.name,
        claims=tuple(line.removeprefix("- ") for line in lines if line.startswith("- ")),
        listings=tuple(read_listing(folder, key) for key in tables),
        figures=tuple(replace(figure, caption=f"{figure.alternative}.") for figure in drawn),
    )


def read_scores(planned: Mapping[str, Cell], path: Path) -> pd.DataFrame:
    """The scores of all cells, with the columns of ``pipeline.evaluation.intervals``."""
    try:
        kinds: dict[str, Any] = {**COLUMNS, **{name: kind for name, (kind, _) in FURTHER.items()}}
        frame = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values={"right": [""], "picked": [""]})
        missing = [name for name in COLUMNS if name not in frame]
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected scores in {path}, got: {' '.join(str(error).split())}; publish the run again, or remove it"
        ) from None
    unknown = sorted(set(frame.get("cell", ())) ^ set(planned)) if not missing else []
    if missing or unknown or frame.empty:
        odd = f"no column '{missing[0]}'" if missing else f"no match for the cells {unknown}" if unknown else "no line"
        raise UserError(
            f"expected the scores of all cells of plan.yaml in {path}, got {odd}; publish the run again, or remove it"
        )
    for column, (kind, value) in FURTHER.items():
        if column not in frame:
            frame[column] = pd.Series([value] * len(frame), dtype=kind)
    for column in ("row", "task", "seed"):
        frame[column] = frame["cell"].map({name: getattr(cell, column) for name, cell in planned.items()})
    return frame


def data_table(runs: Sequence[Published]) -> Listing:
    """The data of published runs: rows and hashes of every split."""
    rows = tuple(
        (f"{run.name}: {task}", split, file["rows"], file["sha256"][:16])
        for run in runs
        for task, splits in run.about["data"].items()
        for split, file in splits.items()
    )
    return Listing("published-data", "Data of published runs", ("run: task", "split", "rows", "sha256, first 16"), rows)
