"""The report of an experiment on interference: matrix, router ablation, growth, a skill added later."""

from dataclasses import dataclass

import pandas as pd

from pipeline.core.errors import UserError
from pipeline.evaluation import interference
from pipeline.reporting.figures import skills as figures
from pipeline.reporting.figures.gates import gate_panels
from pipeline.reporting.skills import SkillReport, SkillRun
from pipeline.reporting.tables import skills as tables
from pipeline.reporting.tables.listing import Listing, listing_files


@dataclass(frozen=True)
class Part:
    """A part of the report: its tables, its figures by name, and its further files by name."""

    listings: tuple[Listing, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    def texts(self) -> dict[str, str]:
        """All of it as files: name to text."""
        listed = {name: text for listing in self.listings for name, text in listing_files(listing).items()}
        return listed | {f"{name}.svg": svg for name, svg in self.figures} | dict(self.files)


def compose_skills(run: SkillRun, asked: SkillReport) -> tuple[dict[str, str], list[str]]:
    """The report's files, by name, and the claims that the run allows."""
    parts = [parameters(run, asked.claims[0][0])]
    claims: list[str] = []
    if asked.together:
        part, claims = matrix(run, asked)
        parts.append(part)
    else:
        for pair in asked.claims:
            claims.append(tables.advantage_claim(interference.advantage(run.scores, pair, run.resampling), pair))
    if asked.router:
        parts.append(router(run, asked.router))
    if asked.growth:
        parts.append(growth(run, asked.growth))
    if asked.added:
        after = interference.matrix(run.scores, asked.added, run.resampling)
        parts.append(Part((tables.added_table(run, after, asked.added),)))
    return {name: text for part in parts for name, text in part.texts().items()}, claims


def matrix(run: SkillRun, asked: SkillReport) -> tuple[Part, list[str]]:
    """Methods by skills: the matrix on the common reference, and who suffers less, in sentences."""
    common = interference.matrix(run.scores, asked.common, run.resampling)
    own = interference.matrix(run.scores, asked.own, run.resampling)
    claims = []
    for first in dict.fromkeys(pair[0] for pair in asked.claims):
        found = {
            second: interference.contrast(run.scores, asked.common, (first, second), run.resampling)
            for one, second in asked.claims
            if one == first
        }
        sizes = {row: (run.size(row), run.routers.get(row, 0)) for row in (first, *found)}
        claims.append(tables.answer(first, found, sizes, asked.alone))
    beside = [pair for pair in asked.claims if set(pair) <= set(asked.own)]
    claims += [
        tables.claim(interference.contrast(run.scores, asked.own, pair, run.resampling), pair) for pair in beside
    ]
    numbers = pd.concat([common, own], ignore_index=True)
    part = Part(
        (tables.matrix_table(common, own, run.parameters, run.routers),),
        (("interference", figures.interference(common, "interference")),),
        (("matrix.csv", numbers.to_csv(index=False, float_format="%.6f", lineterminator="\n")),),
    )
    return part, [*claims, *tables.matrix_claims(common, asked.alone)]


def parameters(run: SkillRun, first: str) -> Part:
    """Accuracy against trained parameters, of the rows that have all tasks of the row ``first``; and all gates."""
    tasks = run.tasks(first)
    whole = [row for row in run.rows if set(tasks) <= set(run.tasks(row))]
    points = {row: (run.parameters[row], run.mean(row, tasks)) for row in whole if row in run.parameters}
    base = run.mean("base", tasks) if "base" in whole else None
    drawn = [("parameters", figures.against_parameters(points, base, "parameters"))]
    if run.gates:
        drawn.append(("skill-gates", gate_panels(run.gates, "skill-gates")))
    return Part(figures=tuple(drawn))


def router(run: SkillRun, rows: tuple[str, ...]) -> Part:
    """Variants of CS-ReFT beside the first of them."""
    if missing := [row for row in rows if row not in run.gates]:
        raise UserError(
            f"params.yaml: expected rows with a router in skill_reports, got '{missing[0]}'; correct 'router'"
        )
    first, *others = rows
    against = {row: interference.advantage(run.scores, (row, first), run.resampling) for row in others}
    estimates = {row: run.mean(row, run.tasks(row)) for row in rows}
    return Part((tables.router_table(run, estimates, against),))


def growth(run: SkillRun, rows: tuple[str, ...]) -> Part:
    """Rows with ever more skills, on those that all of them have and on all their own."""
    if missing := [row for row in rows if row not in run.provenance]:
        raise UserError(
            f"params.yaml: expected rows that are trained in skill_reports, got '{missing[0]}'; correct 'growth'"
        )
    shared = [task for task in run.tasks(rows[0]) if all(task in run.tasks(row) for row in rows)]
    always = {row: run.mean(row, shared) for row in rows}
    table = tables.growth_table(run, always, {row: run.mean(row, run.tasks(row)) for row in rows}, shared)
    lines: dict[str, list[tuple[int, tuple[float, float, float]]]] = {}
    for row in rows:
        trained = run.provenance[row]
        lines.setdefault(trained["method"], []).append((len(trained["tasks"]), always[row]))
    drawn = figures.growth({method: sorted(line) for method, line in lines.items()}, "growth")
    return Part((table,), (("growth", drawn),))
