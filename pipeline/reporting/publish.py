"""Publish a finished run: copy what is small and worth keeping of it into a folder that is committed.

``selfadapt publish`` writes ``reports/published/<base model>``, whole or not at all, in the form that
``pipeline.reporting.published`` describes and reads; the report shows it beside its own run. Prompts and models, which
can be made again, are left out: hashes tell what they were.
"""

import importlib.metadata
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.artifacts import atomic_folder, digest, read_jsonl, read_tensors, write_json, write_text
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.core.reading import read_yaml
from pipeline.core.stage import STATE
from pipeline.data.splits import FILLED
from pipeline.reporting.compose import accuracy_metrics, published_listings
from pipeline.reporting.compressed import write_lines
from pipeline.reporting.planned import Plan, RunSettings, read_plan
from pipeline.reporting.published import COLUMNS, COMPLETIONS, FORMAT, FURTHER, RULES, SEARCHES, read_one
from pipeline.reporting.read import (
    read_base,
    read_completions,
    read_examples,
    read_needs,
    read_published,
    read_records,
    read_rules,
    read_scores,
)
from pipeline.reporting.statistics import published_statistics
from pipeline.reporting.tables.accuracy import comparison_of
from pipeline.reporting.tables.comparison import comparison_files
from pipeline.reporting.tables.costs import behind
from pipeline.reporting.tables.listing import listing_files

ARTIFACTS, DATA, REPORTS, PUBLISHED = Path("artifacts"), Path("data/tasks"), Path("reports"), Path("reports/published")
PAPERS, PARAMS, PLAN, LOCK = Path("data/published"), Path("params.yaml"), Path("plan.yaml"), Path("dvc.lock")
SMALL = 1 << 19  # bytes of an adapter that is committed, as an expert vector's; a larger one is told by its hash
LIBRARIES = ("torch", "transformers", "numpy")
# The section of the plan that says each part of a published run, with the stage that leaves it.
PARTS = {
    "cells": ("cells", "score"),
    "rules": ("heuristics", "heuristics"),
    "heads": ("train_head", "classify"),
    "experiments": ("compare_skills", "compare_skills"),
    "judged": ("judge", "judge"),
}


@dataclass(frozen=True)
class Chosen:
    """The keys of what is published, of the sections of the plan.

    rules: tasks whose rules without a model are kept. heads: classification heads. experiments: reports of experiments
    on skills. judged: what judges preferred.
    """

    cells: Sequence[str]
    rules: Sequence[str] = ()
    heads: Sequence[str] = ()
    experiments: Sequence[str] = ()
    judged: Sequence[str] = ()

    @property
    def stages(self) -> list[str]:
        """The stages that leave it, as DVC calls them."""
        return [f"{stage}@{key}" for part, (_, stage) in PARTS.items() for key in getattr(self, part)]

    def of(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """The plan's sections with what is chosen alone."""
        kept = {
            section: {key: sections[section][key] for key in getattr(self, part)}
            for part, (section, _) in PARTS.items()
        }
        return {**sections, **kept}


def publish(cells: Sequence[str], name: str | None) -> Path:
    """Write the published run of the project in the working directory; returns its folder.

    cells: of the plan; where none is named, all that are scored, with the classification heads, the experiments on
    skills and the judges' preferences. name: of the folder (default: the base model's).
    Raises UserError where a cell is unknown, not scored, or scored from something else than what is there now.
    """
    whole = read_plan(PLAN)
    chosen = _chosen(cells, whole)
    plan = whole.of({cell: whole.cells[cell] for cell in chosen.cells})
    about = _about(plan, chosen)
    folder = PUBLISHED / (name or about["base"]["base"]).replace("/", "-")
    again = f"selfadapt plan && dvc repro {' '.join(chosen.stages)}" if cells else "selfadapt run"
    about["command"] = f"cp {folder}/params.yaml params.yaml && {again}"
    with atomic_folder(folder) as temporary:
        write_json(temporary / "run.json", about)
        shutil.copyfile(PARAMS, temporary / "params.yaml")
        kept = chosen.of(read_yaml(PLAN)["plan"])
        write_text(temporary / "plan.yaml", _dump({"plan": kept}))
        if plan.cells:
            _write_answers(temporary, plan, chosen.rules)
        _copy_files(temporary, chosen, about["adapters"], plan)
        write_numbers(temporary, read_published(PAPERS))
    return folder


def _dump(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1 << 20, default_flow_style=None)


def _write_answers(folder: Path, plan: Plan, ruled: Sequence[str]) -> None:
    """Write scores, answers, and what rules without a model are right for on the examples of the tasks ``ruled``."""
    scores = read_scores(plan.cells, ARTIFACTS / "scores", read_examples(plan, DATA))
    write_text(folder / "scores.csv", scores[[*COLUMNS, *FURTHER]].to_csv(index=False, lineterminator="\n"))
    completions = read_completions(plan, ARTIFACTS / "completions")
    lines = ({"cell": cell, **vars(answer)} for cell, answers in completions.items() for answer in answers.values())
    write_lines(folder / COMPLETIONS, lines)
    if rules := read_rules(ruled, ARTIFACTS / "scores"):
        rows = (
            {"task": task, **{str(name): value for name, value in line.items()}}
            for task, of in rules.items()
            for line in of.to_dict("records")
        )
        write_lines(folder / RULES, rows)


def _copy_files(folder: Path, chosen: Chosen, adapters: Mapping[str, Mapping[str, Any]], plan: Plan) -> None:
    """Copy what is published as it stands. adapters: path to provenance, with its bytes."""
    for head in chosen.heads:
        for file in (f"heads/{head}.json", f"heads/{head}.labels.jsonl"):
            _copy(ARTIFACTS / "scores" / file, folder / file)
    for key in chosen.judged:
        _copy(ARTIFACTS / f"scores/judged/{key}.json", folder / f"judged/{key}.json")
    for key in chosen.experiments:
        shutil.copytree(REPORTS / key, folder / "experiments" / key)
    for adapter, provenance in adapters.items():
        name = Path(adapter).name
        if adapter.startswith(f"{SEARCHES}/"):
            _copy(ARTIFACTS / f"{adapter}.jsonl", folder / f"{adapter}.jsonl")
        curve = plan.curves.get(name, f"{adapter}.curve.jsonl")  # that of a head stands beside it
        _copy(ARTIFACTS / curve, folder / f"curves/{name}.jsonl")
        if provenance["bytes"] <= SMALL:
            _copy(ARTIFACTS / f"{adapter}.safetensors", folder / f"adapters/{adapter}.safetensors")


def numbers(folder: Path, papers: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a published run's scores come to: its metrics, and its tables by file. papers: the papers' numbers."""
    published = read_one(folder, papers)
    measured = published_statistics(published)
    comparisons = [comparison_of(key, published.run, measured) for key in measured.comparisons]
    files = {file: text for table in comparisons for file, text in comparison_files(table).items()}
    for listing in published_listings(published, measured):
        files |= listing_files(listing)
    return accuracy_metrics(comparisons, measured), files


def write_numbers(folder: Path, papers: Mapping[str, Any]) -> None:
    """Write what a published run's scores come to, for other programs and for people."""
    metrics, files = numbers(folder, papers)
    write_json(folder / "metrics.json", metrics)
    shutil.rmtree(folder / "tables", ignore_errors=True)
    for file, text in files.items():
        write_text(folder / "tables" / file, text)


def stale(stages: Sequence[str]) -> list[str]:
    """Those of some stages and of the stages behind them that DVC would run again, since what they left is outdated."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return sorted(repo.status(targets=list(stages), with_deps=True))
    except DvcException as error:
        raise UserError(
            f"expected DVC to know the state of this run, got: {' '.join(str(error).split())}; run this in the "
            "project's folder, after 'dvc repro'"
        ) from None


def scored(plan: Plan) -> list[str]:
    """The cells whose scores are there."""
    return [cell for cell in plan.cells if (ARTIFACTS / f"scores/{cell}.parquet").is_file()]


def _chosen(cells: Sequence[str], plan: Plan) -> Chosen:
    there = scored(plan)
    if unknown := [cell for cell in cells if cell not in plan.cells]:
        raise UserError(f"expected cells of {PLAN}, got '{unknown[0]}'; it has: {', '.join(plan.cells)}")
    if missing := [cell for cell in cells if cell not in there]:
        raise UserError(
            f"expected the scores of '{missing[0]}' in {ARTIFACTS / 'scores'}, got none; "
            f"run 'dvc repro score@{missing[0]}'"
        )
    answered = {plan.cells[cell].task for cell in cells or there}
    rules = [task for task in plan.heuristics if task in answered]
    if cells:
        chosen = Chosen([cell for cell in plan.cells if cell in cells], rules)
    else:
        heads = [head for head in plan.train_head if (ARTIFACTS / f"scores/heads/{head}.json").is_file()]
        experiments = [key for key in plan.compare_skills if (REPORTS / key).is_dir()]
        judged = [key for key in plan.judge if (ARTIFACTS / f"scores/judged/{key}.json").is_file()]
        chosen = Chosen(there, rules, heads, experiments, judged)
    if not chosen.stages:
        raise UserError(f"expected something scored in {ARTIFACTS / 'scores'}, got nothing; run 'dvc repro'")
    if outdated := stale(chosen.stages):
        raise UserError(
            f"expected a run that is up to date, but {', '.join(outdated)} would run again: the scores that are there "
            f"are of other code, settings or data; run 'dvc repro {' '.join(chosen.stages)}'"
        )
    return chosen


def _about(plan: Plan, chosen: Chosen) -> dict[str, Any]:
    """What the run was, but for the command: see ``pipeline.reporting.published.Published``."""
    records = read_records(STATE / "runs", plan.stages)
    reached = behind(chosen.stages, read_needs(LOCK, records, plan.stages))
    ran = {name: records[name] for name in reached if name in records}
    used = [cell.adapter for cell in plan.cells.values() if cell.method != "base"]
    adapters = {}
    for adapter in dict.fromkeys([*used, *(f"heads/{head}" for head in chosen.heads)]):
        path = ARTIFACTS / f"{adapter}.safetensors"
        provenance = read_tensors(path)[1].get("provenance", {})
        adapters[adapter] = {**provenance, "bytes": path.stat().st_size, "sha256": digest(path)}
    tasks = [cell.task for cell in plan.cells.values()]
    labelled = [task for head in chosen.heads for task in plan.train_head[head].data]
    return {
        "format": FORMAT,
        "commits": sorted({record["commit"] for record in ran.values() if record.get("commit")}),
        "base": {**read_base(ARTIFACTS / "base/base.safetensors"), "sha256": digest(ARTIFACTS / "base/model")},
        "adapters": adapters,
        "data": {task: _splits(task) for task in dict.fromkeys([*tasks, *labelled])},
        "device": _machine(
            RunSettings.read(read_params(PARAMS), {}).compute, [record["host"] for record in ran.values()]
        ),
        "versions": {library: importlib.metadata.version(library) for library in LIBRARIES},
        "seconds": {name: round(record["seconds"], 1) for name, record in ran.items()},
    }


def _splits(task: str) -> dict[str, dict[str, Any]]:
    """Rows and sha256 of each split of a task that has rows."""
    paths = {split: DATA / task / f"{split}.jsonl" for split in sorted(FILLED)}
    rows = {split: len(read_jsonl(path)) for split, path in paths.items()}
    return {split: {"rows": rows[split], "sha256": digest(path)} for split, path in paths.items() if rows[split]}


def _machine(compute: Mapping[str, Any], hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the run computed on. hosts: of its stages' records."""
    return {
        "device": _device(compute["device"]),
        "dtype": compute["dtype"],
        "threads": compute["threads"],
        "cores": ", ".join(sorted({str(host["cores"]) for host in hosts})) or "unknown",
        "machine": ", ".join(sorted({host["machine"] for host in hosts})) or "unknown",
    }


def _device(kind: str) -> str:
    """The device's name by its driver, where that is there."""
    if kind == "cuda":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    return kind


def _copy(path: Path, to: Path) -> None:
    """Copy a file that may not be there: a mixture has no curve."""
    if path.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
