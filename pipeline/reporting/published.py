"""Runs that were published: results, curves and expert vectors, small enough to be committed, read and shown.

A published run is a folder of ``reports/published``, written whole by ``pipeline.reporting.publish``:

    run.json              what it was: see ``about``
    params.yaml           all its settings, with the published cells alone
    scores.csv            cell, id, correct, parsed, finished, tokens: a line for each answer; none without cells
    curves/<name>.jsonl   the learning curves of what the cells used
    adapters/<path>.safetensors   what was trained, where it is small: files that ``load_adapter`` reads
    heads/<key>.json, .labels.jsonl   of classification heads: what each is, and what it labelled
    judged/<key>.json     what judges preferred of a cell's answers, and how often they agreed with GPT-4
    experiments/<key>/    what ``compare_skills`` made of the run, from answers and gates, which are not kept
    metrics.json, tables/ what ``scores.csv`` comes to, for other programs and for people

The report computes its numbers from ``scores.csv``, the labels and the preferences, as it does from a run's own, shows
experiments as they were written, and never reads the last two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.artifacts import read_json
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.reporting.read import Run, RunSettings, read_curves
from pipeline.reporting.site import Figure
from pipeline.reporting.tables.further import read_judged
from pipeline.reporting.tables.heads import read_heads
from pipeline.reporting.tables.listing import Listing, read_listing

FORMAT = 1
NO_SCORES = pd.DataFrame(columns=["row", "task"])  # of a run that has no cells
COLUMNS = {"cell": str, "id": str, "correct": bool, "parsed": bool, "finished": bool, "tokens": int}
ABOUT = ("format", "commits", "base", "adapters", "data", "baselines", "subsets", "device", "versions", "seconds")


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

    heads: see ``reporting.heads.read_heads``; judged: ``reporting.further.read_judged``. about: ``format``, a number;
    ``commits`` of the code that its stages ran, with a plus where settings differed from the commit's; ``base`` and
    ``adapters``, provenance and sha256 of the base model and of all that was trained; ``data``, rows and sha256 of each
    task's splits; ``baselines``, what needs no model, and ``subsets``, the same of the columns of tables that show one
    task's subsets; ``device``; ``versions`` of libraries; ``seconds`` of each stage.
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
        return sorted({one["seed"] for one in self.about["adapters"].values() if one.get("seed") is not None})

    @property
    def tables(self) -> list[str]:
        """The tables that the run's cells fill, without those whose cells all stand in one before."""
        kept: list[str] = []
        for key in self.run.settings.tables():
            cells = [set(cell.table) for cell in self.run.settings.cells.values() if key in cell.table]
            if any(not cell.intersection(kept) for cell in cells):
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
        }


def read_published_runs(folder: Path, papers: Mapping[str, Any]) -> list[Published]:
    """All runs of a folder, by name; none where it is not there. papers: the papers' numbers."""
    return [read_one(path.parent, papers) for path in sorted(folder.glob("*/run.json"))]


def read_one(folder: Path, papers: Mapping[str, Any]) -> Published:
    about = read_json(folder / "run.json")
    missing = [key for key in ABOUT if not isinstance(about, dict) or key not in about]
    if missing or about["format"] != FORMAT:
        found = f"none of '{missing[0]}'" if missing else f"format {about['format']}"
        raise UserError(
            f"expected a published run of format {FORMAT} in {folder}, got {found}; publish it again, or remove it"
        )
    settings = RunSettings.parse(read_params(folder / "params.yaml"), "")
    run = Run(
        settings=settings,
        scores=read_scores(settings, folder / "scores.csv") if settings.cells else NO_SCORES,
        examples=dict.fromkeys(about["data"], ()),
        provenance=about["adapters"],
        base=about["base"],
        published=papers,
        curves=read_curves(folder / "curves"),
    )
    experiments = [read_experiment(path) for path in sorted((folder / "experiments").glob("*"))]
    judged = read_judged(folder / "judged")
    return Published(folder.name, about, run, read_heads(folder / "heads"), experiments, judged)


def read_experiment(folder: Path) -> Experiment:
    """What the stage ``compare_skills`` wrote."""
    said = (folder / "claims.md").read_text(encoding="utf-8").splitlines()
    tables = [path.stem for path in sorted(folder.glob("*.csv")) if path.with_suffix(".md").is_file()]
    drawn = [Figure(path.stem, path.read_text(encoding="utf-8"), "") for path in sorted(folder.glob("*.svg"))]
    return Experiment(
        key=folder.name,
        claims=tuple(line.removeprefix("- ") for line in said if line.startswith("- ")),
        listings=tuple(read_listing(folder, key) for key in tables),
        figures=tuple(replace(one, caption=f"{one.alternative}.") for one in drawn),
    )


def read_scores(settings: RunSettings, path: Path) -> pd.DataFrame:
    """The answers' scores, with the columns of ``pipeline.evaluation.intervals``."""
    try:
        frame = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False)
        missing = [name for name in COLUMNS if name not in frame]
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected scores in {path}, got: {' '.join(str(error).split())}; publish the run again, or remove it"
        ) from None
    unknown = sorted(set(frame.get("cell", ())) ^ set(settings.cells)) if not missing else []
    if missing or unknown or frame.empty:
        odd = f"no column '{missing[0]}'" if missing else f"no match for the cells {unknown}" if unknown else "no line"
        raise UserError(
            f"expected the scores of all cells of params.yaml in {path}, got {odd}; publish the run again, or remove it"
        )
    cells = {name: settings.cells[name] for name in dict.fromkeys(frame["cell"])}
    for column in ("row", "task", "seed"):
        frame[column] = frame["cell"].map({name: getattr(cell, column) for name, cell in cells.items()})
    return frame


def data_table(runs: Sequence[Published]) -> Listing:
    """The data of published runs: rows and hashes of every split."""
    rows = tuple(
        (f"{one.name}: {task}", split, found["rows"], found["sha256"][:16])
        for one in runs
        for task, splits in one.about["data"].items()
        for split, found in splits.items()
    )
    return Listing("published-data", "Data of published runs", ("run: task", "split", "rows", "sha256, first 16"), rows)
