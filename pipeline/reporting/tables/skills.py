"""The report of an experiment on interference: its tables and claims, from scores and what the router did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ConfigDict, Field

from pipeline.core.artifacts import read_jsonl, read_tensors
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.reporting.read import Cell, ReportSettings
from pipeline.reporting.tables.listing import Listing, cell_text, percent, signed


class Plan(Section, at="skill_reports.{report}"):
    """Which cells are what. table: whose cells are meant, by the tables they name.

    references: row to the row of the same method trained on each skill alone; with none, there is no matrix.
    claims: pairs of the row that should suffer less and the one it is compared with. router: the rows of an ablation of
    CS-ReFT, the first of them what the others change one thing of. growth: rows with ever more skills. added: row with
    a skill added later to the row before.
    """

    table: str
    references: dict[str, str]
    claims: tuple[tuple[str, str], ...] = Field(min_length=1)
    router: tuple[str, ...]
    growth: tuple[str, ...]
    added: dict[str, str]


class Reported(Section, at=""):
    """What of params.yaml is read: the cells, and how intervals are drawn."""

    model_config = ConfigDict(extra="ignore")

    cells: dict[str, Cell]
    report: ReportSettings


@dataclass(frozen=True)
class Found:
    """What a run left of the experiment.

    scores: as ``pipeline.evaluation.intervals`` takes them. texts: (row, task, seed) to the answers. provenance, gates: by row,
    of its first adapter; gates are means over held-out prompts, skills by subspaces. parameters: of all the row's
    adapters of one seed together; routers: how many of them are a router's.
    """

    scores: pd.DataFrame
    texts: Mapping[tuple[str, str, int], Sequence[str]]
    provenance: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, int]
    routers: Mapping[str, int]
    gates: Mapping[str, pd.DataFrame]


def read(cells: Mapping[str, Cell], table: str, scores: Path, completions: Path, adapters: Path) -> Found:
    """Everything of the cells that are in ``table``."""
    chosen = {name: cell for name, cell in cells.items() if table in cell.table}
    if not chosen:
        raise UserError(f"params.yaml: expected cells of the table '{table}', got none; add some to 'cells'")
    frames, texts = [], {}
    provenance: dict[str, Mapping[str, Any]] = {}
    counted: dict[tuple[str, int], dict[str, int]] = {}
    gates: dict[str, pd.DataFrame] = {}
    for name, cell in chosen.items():
        frame = pd.read_parquet(scores / f"{name}.parquet")
        frames.append(frame.assign(row=cell.row, task=cell.task, seed=cell.seed, cell=name))
        texts[cell.row, cell.task, cell.seed] = [row["text"] for row in read_jsonl(completions / f"{name}.jsonl")]
        path = adapters / f"{Path(cell.adapter).name}.safetensors"
        if path.is_file():  # the base model has none here
            one = read_tensors(path)[1]["provenance"]
            provenance.setdefault(cell.row, one)
            counted.setdefault((cell.row, cell.seed), {})[cell.adapter] = one["parameters"]
            rows = read_jsonl(path.with_suffix(".gates.jsonl"))
            if rows and cell.row not in gates:
                opened = pd.DataFrame([row["gates"] for row in rows], dtype=float)
                gates[cell.row] = opened.groupby([row["skill"] for row in rows], sort=False).mean()
    parameters = {row: max(sum(one.values()) for key, one in counted.items() if key[0] == row) for row, _ in counted}
    routers = {
        row: one["parameters"] - one["parameters_without_router"]
        for row, one in provenance.items()
        if one.get("parameters_without_router") is not None
    }
    return Found(pd.concat(frames, ignore_index=True), texts, provenance, parameters, routers, gates)


# ---- tables ---------------------------------------------------------------------------------------------------------


def interval(mean: float, low: float, high: float) -> str:
    return f"{percent(mean)} [{percent(low)}, {percent(high)}]"


def change(line: Mapping[Any, Any]) -> str:
    between = f"[{signed(line['diff_low'])}, {signed(line['diff_high'])}]"
    return f"{signed(line['diff'])} {between}; {percent(line['together'])} against {percent(line['alone'])} alone"


def matrix_table(matrix: pd.DataFrame, parameters: Mapping[str, int], routers: Mapping[str, int]) -> Listing:
    """Methods by skills: the change in points against training the skill alone. routers: see ``Found``."""
    tasks = list(dict.fromkeys(matrix["task"]))
    rows = [
        (
            row.replace("_", " "),
            parameters.get(row),
            routers.get(row),
            *(change(line) for line in matrix[matrix["row"] == row].to_dict("records")),
        )
        for row in dict.fromkeys(matrix["row"])
    ]
    seeds, n = matrix["seeds"].max(), matrix.loc[matrix["task"] == tasks[0], "n"].max()
    note = (
        "Accuracy of an adapter trained on all skills less that of one trained on this skill alone, in points with its "
        f"95 % interval, paired over the {n} test prompts of a skill"
        + (f" and over {seeds} seeds." if seeds > 1 else ".")
    )
    columns = ("trained together", "parameters", "router’s", *(task.replace("_", " ") for task in tasks))
    return Listing("interference", "Interference: what training skills together costs each", columns, tuple(rows), note)


def router_table(
    found: Found, estimates: Mapping[str, Sequence[float]], against: Mapping[str, Mapping[str, Any]]
) -> Listing:
    """Each variant of CS-ReFT: its mean accuracy, what that is against the first, how its gates are used.

    against: row to ``pipeline.evaluation.interference.advantage`` over the first.
    """
    rows = []
    for row, numbers in estimates.items():
        gates = found.gates[row]
        used = "; ".join(f"{skill}: {' '.join(f'{one:.2f}' for one in gates.loc[skill])}" for skill in gates.index)
        rows.append((row.replace("_", " "), found.parameters[row], interval(*numbers), over(against.get(row)), used))
    first = next(iter(estimates)).replace("_", " ")
    note = (
        f"Each differs from {first} in what it is called by. Mean gate of each subspace on held-out prompts of each "
        "skill: 0 is closed, 1 is open."
    )
    columns = ("CS-ReFT", "parameters", "mean over skills", f"against {first}", "gates, by skill")
    return Listing("router", "The router, and what else CS-ReFT is made of", columns, tuple(rows), note)


def over(found: Mapping[str, Any] | None) -> str | None:
    """A difference in points with its interval and what that says."""
    if found is None:
        return None
    return f"{signed(found['diff'])} [{signed(found['diff_low'])}, {signed(found['diff_high'])}] {found['verdict']}"


def growth_table(
    found: Found, shared: Mapping[str, Sequence[float]], whole: Mapping[str, Sequence[float]], tasks: Sequence[str]
) -> Listing:
    """The more skills are trained together: the mean on those that are always there, and on all."""
    rows = [
        (
            row.replace("_", " "),
            len(found.provenance[row]["tasks"]),
            found.parameters[row],
            interval(*shared[row]),
            interval(*whole[row]),
        )
        for row in shared
    ]
    columns = ("trained together", "skills", "parameters", f"mean on {' and '.join(tasks)}", "mean on all its skills")
    return Listing("growth", "Ever more skills in one adapter", columns, tuple(rows))


def added_table(found: Found, matrix: pd.DataFrame, added: Mapping[str, str]) -> Listing:
    """What a skill that was added later changed for the old ones."""
    rows = []
    for line in matrix.to_dict("records"):
        keys = [key for key in found.texts if key[0] == line["row"] and key[1] == line["task"]]
        if keys:
            pairs = [
                pair
                for row, task, seed in keys
                for pair in zip(found.texts[row, task, seed], found.texts[added[row], task, seed], strict=True)
            ]
            changed = sum(one != other for one, other in pairs)
            rows.append((line["row"].replace("_", " "), line["task"], change(line), f"{changed} of {len(pairs)}"))
    columns = ("after", "old skill", "change against before", "answers that differ")
    return Listing("added", "A skill added later, old subspaces frozen", columns, tuple(rows))


# ---- claims ---------------------------------------------------------------------------------------------------------


def claim(contrast: Mapping[str, Any], pair: Sequence[str]) -> str:
    """Whether the first of two methods suffers less interference than the second, by the interval alone."""
    words = {"better": "suffers less", "worse": "suffers more", "undecided": "is not shown to suffer less"}
    one, other = (name.replace("_", " ") for name in pair)
    between = f"95 % interval {signed(contrast['diff_low'])} to {signed(contrast['diff_high'])}"
    return (
        f"{one} {words[str(contrast['verdict'])]} interference than {other}: its change by training together is "
        f"{signed(contrast['diff'])} points beside the other's ({between}, n = {cell_text(contrast['n'])})."
    )


def advantage_claim(found: Mapping[str, Any], pair: Sequence[str]) -> str:
    """Which of two methods trained on all skills is the more accurate, by the interval alone."""
    one, other = (name.replace("_", " ") for name in pair)
    words = {"better": "is more accurate than", "worse": "is less accurate than", "undecided": "is not told apart from"}
    between = f"95 % interval {signed(found['diff_low'])} to {signed(found['diff_high'])}"
    return (
        f"Trained on all skills, {one} {words[str(found['verdict'])]} {other}: {signed(found['diff'])} points on the "
        f"mean over skills ({between}, n = {cell_text(found['n'])})."
    )


def matrix_claims(matrix: pd.DataFrame) -> list[str]:
    """For each method, on how many skills training together is worse, better or undecided."""
    said = []
    for row, part in matrix[matrix["task"] != "mean_over_tasks"].groupby("row", sort=False):
        groups = {word: list(part.loc[part["verdict"] == word, "task"]) for word in ("worse", "better", "undecided")}
        parts = [f"{word} on {' and '.join(tasks)}" for word, tasks in groups.items() if tasks]
        said.append(f"{str(row).replace('_', ' ')} trained together is, against each skill alone, {', '.join(parts)}.")
    return said
