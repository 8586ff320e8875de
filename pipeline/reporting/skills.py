"""What a run left of an experiment on interference: scores, answers, and what the routers did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from pipeline.core.artifacts import read_jsonl, read_tensors
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.evaluation import interference
from pipeline.evaluation.intervals import Resampling
from pipeline.reporting.planned import Plan
from pipeline.reporting.read import mean_gates, planned


class SkillReport(Section, at="skill_reports.{report}"):
    """What a report of an experiment compares.

    table: its cells are compared. together: the rows that were trained on all skills; without any, there is no matrix.
    alone: the row trained on each skill alone that all of them are set against, the common reference. own: row to the
    row of the same method and size trained on each skill alone, shown beside.
    claims: pairs of the row that should suffer less and the row, of its size, that it is compared with.
    router: the rows of an ablation of CS-ReFT; each of the others changes one thing of the first.
    growth: rows with ever more skills. added: row with a skill added later to the row before.
    """

    table: str
    together: tuple[str, ...]
    alone: str
    own: dict[str, str]
    claims: tuple[tuple[str, str], ...] = Field(min_length=1)
    router: tuple[str, ...]
    growth: tuple[str, ...]
    added: dict[str, str]

    @property
    def common(self) -> dict[str, str]:
        """Row to the reference that is the same for all."""
        return dict.fromkeys(self.together, self.alone)


@dataclass(frozen=True)
class SkillRun:
    """What a run left of an experiment.

    scores: as ``pipeline.evaluation.intervals`` takes them. texts: (row, task, seed) to the answers.
    provenance, gates: by row, of its first adapter; gates are means over held-out prompts, skills by subspaces.
    parameters: by row, of all its adapters of one seed together. routers: how many of them are a router's.
    resampling: how intervals are drawn.
    """

    scores: pd.DataFrame
    texts: Mapping[tuple[str, str, int], Sequence[str]]
    provenance: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, int]
    routers: Mapping[str, int]
    gates: Mapping[str, pd.DataFrame]
    resampling: Resampling

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(self.scores["row"]))

    def size(self, row: str) -> int:
        """How many parameters a row trains, its router left out."""
        return self.parameters.get(row, 0) - self.routers.get(row, 0)

    def tasks(self, row: str) -> list[str]:
        """The tasks that a row has cells on."""
        return list(interference.accuracies(self.scores, row))

    def mean(self, row: str, tasks: Sequence[str]) -> tuple[float, float, float]:
        """A row's mean accuracy over some tasks, with its interval."""
        return interference.spans(self.scores, row, tasks, self.resampling)


def read_skills(
    plan: Plan, table: str, resampling: Resampling, *, scores: Path, completions: Path, adapters: Path
) -> SkillRun:
    """Everything of the cells that stand in ``table``. scores, completions, adapters: the folders they are in."""
    cells = plan.cells_of(table)
    if not cells:
        raise UserError(f"params.yaml: expected cells of the table '{table}', got none; add it to 'tables'")
    frames, texts = [], {}
    provenance: dict[str, Mapping[str, Any]] = {}
    counted: dict[tuple[str, int], dict[str, int]] = {}
    gates: dict[str, pd.DataFrame] = {}
    for name, cell in cells.items():
        frame = pd.read_parquet(planned(scores / f"{name}.parquet", f"score@{name}"))
        frames.append(frame.assign(row=cell.row, task=cell.task, seed=cell.seed, cell=name))
        answers = read_jsonl(planned(completions / f"{name}.jsonl", f"generate@{name}"))
        texts[cell.row, cell.task, cell.seed] = [answer["text"] for answer in answers]
        folder, _, stem = cell.adapter.partition("/")
        maker = plan.adapters.get(cell.adapter)
        if maker is None or folder != adapters.name:  # the base model, which nothing is trained for
            continue
        about = read_tensors(planned(adapters / f"{stem}.safetensors", maker))[1]["provenance"]
        provenance.setdefault(cell.row, about)
        counted.setdefault((cell.row, cell.seed), {})[cell.adapter] = about["parameters"]
        if cell.adapter in plan.gates.get(cell.row, ()) and cell.row not in gates:
            rows = read_jsonl(planned(adapters / f"{stem}.gates.jsonl", maker))
            gates |= {cell.row: mean_gates(rows)} if rows else {}
    parameters = {
        row: max(sum(adapter.values()) for key, adapter in counted.items() if key[0] == row) for row, _ in counted
    }
    routers = {
        row: about["parameters"] - about["parameters_without_router"]
        for row, about in provenance.items()
        if about.get("parameters_without_router") is not None
    }
    return SkillRun(pd.concat(frames, ignore_index=True), texts, provenance, parameters, routers, gates, resampling)
