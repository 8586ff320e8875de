"""Publish a finished run: copy what is small and worth keeping of it into a folder that is committed.

``selfadapt publish`` writes ``reports/published/<base model>``, whole or not at all, in the form that
``pipeline.reporting.published`` describes and reads; the report shows it beside its own run. Prompts, answers and
models are left out: what they were is told by hashes.
"""

import importlib.metadata
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.artifacts import atomic_folder, digest, read_jsonl, read_tensors, write_json, write_text
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.core.stage import STATE
from pipeline.data.splits import FILLED
from pipeline.evaluation.intervals import trivial_baselines
from pipeline.reporting import read as left
from pipeline.reporting.compose import COMPARED, LISTED, measured_listings
from pipeline.reporting.published import COLUMNS, FORMAT, read_one
from pipeline.reporting.statistics import published_statistics, subset_baselines
from pipeline.reporting.tables import listing as tables
from pipeline.reporting.tables.accuracy import comparison
from pipeline.reporting.tables.costs import behind

ARTIFACTS, DATA, REPORTS, PUBLISHED = Path("artifacts"), Path("data/tasks"), Path("reports"), Path("reports/published")
PAPERS, PARAMS, LOCK = Path("data/published"), Path("params.yaml"), Path("dvc.lock")
SMALL = 1 << 19  # bytes of an adapter that is committed, as an expert vector's; a larger one is told by its hash
LIBRARIES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Chosen:
    """What of a run is published.

    cells; heads: classification heads; experiments: reports of experiments on skills; judged: what judges preferred.
    """

    cells: Sequence[str]
    heads: Sequence[str] = ()
    experiments: Sequence[str] = ()
    judged: Sequence[str] = ()

    @property
    def stages(self) -> list[str]:
        """The stages that leave it, as DVC calls them."""
        found = [f"score@{cell}" for cell in self.cells] + [f"classify@{head}" for head in self.heads]
        found += [f"compare_skills@{key}" for key in self.experiments]
        return found + [f"judge@{key}" for key in self.judged]


def publish(cells: Sequence[str], name: str | None) -> Path:
    """Write the published run of the project in the working directory; returns its folder.

    cells: of params.yaml; none names all that are scored, with the classification heads, the experiments on skills and
    the judges' preferences.
    name: of the folder (default: the base model's).
    Raises UserError where a cell is unknown, not scored, or scored from something else than what is there now.
    """
    params = read_params(PARAMS)
    settings = left.RunSettings.parse(params, "")
    chosen = _chosen(cells, settings)
    settings = settings.model_copy(update={"cells": {cell: settings.cells[cell] for cell in chosen.cells}})
    about = _about(settings, chosen)
    folder = PUBLISHED / (name or about["base"]["base"]).replace("/", "-")
    with atomic_folder(folder) as temporary:
        write_json(temporary / "run.json", about)
        kept = {**params, "cells": {cell: params["cells"][cell] for cell in chosen.cells}}
        write_text(temporary / "params.yaml", yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=120))
        if chosen.cells:
            scores = left.read_scores(settings, ARTIFACTS / "scores")
            write_text(temporary / "scores.csv", scores[list(COLUMNS)].to_csv(index=False, lineterminator="\n"))
        for head in chosen.heads:
            for file in (f"heads/{head}.json", f"heads/{head}.labels.jsonl"):
                _copy(ARTIFACTS / "scores" / file, temporary / file)
        for key in chosen.judged:
            _copy(ARTIFACTS / f"scores/judged/{key}.json", temporary / f"judged/{key}.json")
        for key in chosen.experiments:
            shutil.copytree(REPORTS / key, temporary / "experiments" / key)
        for adapter, provenance in about["adapters"].items():
            curve = f"{Path(adapter).name}.jsonl"
            _copy(ARTIFACTS / f"curves/{curve}", temporary / "curves" / curve)
            _copy(ARTIFACTS / f"{adapter}.curve.jsonl", temporary / "curves" / curve)  # of a head, or of several skills
            if provenance["bytes"] <= SMALL:
                _copy(ARTIFACTS / f"{adapter}.safetensors", temporary / f"adapters/{adapter}.safetensors")
        one = read_one(temporary, left.read_published(PAPERS))
        measured = published_statistics(one)
        comparisons = [comparison(key, one.run, measured) for key in measured.comparisons]
        write_json(temporary / "metrics.json", {part.key: tables.comparison_metrics(part) for part in comparisons})
        listings = measured_listings(one.run, measured).values()
        files = {f"{part.key}.{suffix}": write(part) for part in comparisons for suffix, write in COMPARED}
        files |= {f"{part.key}.{suffix}": write(part) for part in listings for suffix, write in LISTED}
        for file, text in files.items():
            write_text(temporary / "tables" / file, text)
    return folder


def stale(stages: Sequence[str]) -> list[str]:
    """Those of some stages, and of the stages behind them, that DVC would run again: what they left is outdated."""
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


def scored(settings: left.RunSettings) -> list[str]:
    """The cells whose scores are there."""
    return [cell for cell in settings.cells if (ARTIFACTS / f"scores/{cell}.parquet").is_file()]


def _chosen(cells: Sequence[str], settings: left.RunSettings) -> Chosen:
    there = scored(settings)
    if unknown := [cell for cell in cells if cell not in settings.cells]:
        raise UserError(f"expected cells of params.yaml, got '{unknown[0]}'; it has: {', '.join(settings.cells)}")
    if missing := [cell for cell in cells if cell not in there]:
        raise UserError(
            f"expected the scores of '{missing[0]}' in {ARTIFACTS / 'scores'}; run 'dvc repro score@{missing[0]}'"
        )
    if cells:
        chosen = Chosen([cell for cell in settings.cells if cell in cells])
    else:
        heads = [head for head in settings.section("heads") if (ARTIFACTS / f"scores/heads/{head}.json").is_file()]
        experiments = [key for key in settings.section("skill_reports") if (REPORTS / key).is_dir()]
        judged = [key for key in settings.section("judged") if (ARTIFACTS / f"scores/judged/{key}.json").is_file()]
        chosen = Chosen(there, heads, experiments, judged)
    if not chosen.stages:
        raise UserError(f"expected something scored in {ARTIFACTS / 'scores'}, got nothing; run 'dvc repro'")
    if found := stale(chosen.stages):
        raise UserError(
            f"expected a run that is up to date, but {', '.join(found)} would run again: the scores that are there are "
            f"of other code, settings or data; run 'dvc repro {' '.join(chosen.stages)}'"
        )
    return chosen


def _about(settings: left.RunSettings, chosen: Chosen) -> dict[str, Any]:
    """What ``pipeline.reporting.published.Published.about`` says it is."""
    records = left.read_records(STATE / "runs")
    ran = {name: records[name] for name in behind(chosen.stages, left.read_needs(LOCK, records)) if name in records}
    base = left.read_provenance([ARTIFACTS / "base"])["base/base"]
    used = [cell.adapter for cell in settings.cells.values() if cell.method != "base"]
    adapters = {}
    for adapter in dict.fromkeys([*used, *(f"heads/{head}" for head in chosen.heads)]):
        path = ARTIFACTS / f"{adapter}.safetensors"
        found = read_tensors(path)[1].get("provenance", {})
        adapters[adapter] = {**found, "bytes": path.stat().st_size, "sha256": digest(path)}
    data: dict[str, dict[str, Any]] = {}
    examples = left.read_examples(settings, DATA)
    labelled = [task for head in chosen.heads for task in settings.section("heads")[head]["tasks"].split()]
    for task in dict.fromkeys([*examples, *labelled]):
        paths = {split: DATA / task / f"{split}.jsonl" for split in sorted(FILLED)}
        rows = {split: len(read_jsonl(path)) for split, path in paths.items()}
        data[task] = {split: {"rows": rows[split], "sha256": digest(paths[split])} for split in paths if rows[split]}
    hosts = [record["host"] for record in ran.values()]
    compute = settings.compute
    return {
        "format": FORMAT,
        "commits": sorted({record["commit"] for record in ran.values() if record.get("commit")}),
        "base": {**base, "sha256": digest(ARTIFACTS / "base/model")},
        "adapters": adapters,
        "data": data,
        "baselines": {task: dict(trivial_baselines(one)) for task, one in examples.items()},
        "subsets": subset_baselines(settings, examples),
        "device": {
            "device": _device(compute["device"]),
            "dtype": compute["dtype"],
            "threads": compute["threads"],
            "cores": ", ".join(sorted({str(host["cores"]) for host in hosts})) or "unknown",
            "machine": ", ".join(sorted({host["machine"] for host in hosts})) or "unknown",
        },
        "versions": {library: importlib.metadata.version(library) for library in LIBRARIES},
        "seconds": {name: round(record["seconds"], 1) for name, record in ran.items()},
    }


def _device(kind: str) -> str:
    """The device by the name its driver gives, where that is here."""
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
