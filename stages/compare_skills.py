"""The report of an experiment on interference: matrix, router ablation, growth, a skill added later."""

from pipeline.core.artifacts import atomic_folder
from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import In, Out, main
from pipeline.evaluation import interference
from pipeline.evaluation.intervals import Resampling
from pipeline.reporting.figures import skills as skill_figures
from pipeline.reporting.tables import listing as tables
from pipeline.reporting.tables import skills


def run(
    *,
    report: str,
    plan: skills.Plan,
    settings: skills.Reported,
    scores: In,
    completions: In,
    adapters: In,
    written: Out,
) -> dict[str, object]:
    """Write the tables and figures that the plan asks for, and the claims they allow."""
    resampling = Resampling(resamples=settings.report.resamples, seed=settings.report.seed)
    with step("read the cells"):
        found = skills.read(settings.cells, plan.table, scores, completions, adapters)

    def over(row: str, tasks: list[str]) -> tuple[float, float, float]:
        return interference.spans(found.scores, row, tasks, resampling)

    def tasks_of(row: str) -> list[str]:
        return list(interference.accuracies(found.scores, row))

    with step("compare"):
        ahead = [(interference.advantage(found.scores, pair, resampling), pair) for pair in plan.claims]
        claims = [skills.advantage_claim(one, pair) for one, pair in ahead]
        listings, figures, numbers = [], {}, {}
        if plan.references:
            matrix = interference.matrix(found.scores, plan.references, resampling)
            suffered = [
                (interference.contrast(found.scores, plan.references, pair, resampling), pair) for pair in plan.claims
            ]
            claims = [*(skills.claim(*one) for one in suffered), *claims, *skills.matrix_claims(matrix)]
            listings.append(skills.matrix_table(matrix, found.parameters, found.routers))
            figures["interference"] = skill_figures.interference(matrix, "interference")
            numbers["matrix.csv"] = matrix.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        everywhere = tasks_of(plan.claims[0][0])
        whole = [row for row in dict.fromkeys(found.scores["row"]) if set(everywhere) <= set(tasks_of(row))]
        points = {row: (found.parameters[row], over(row, everywhere)) for row in whole if row in found.parameters}
        base = over("base", everywhere) if "base" in whole else None
        figures["parameters"] = skill_figures.against_parameters(points, base, "parameters")
        if found.gates:
            figures["skill-gates"] = skill_figures.gate_panels(found.gates, "skill-gates")
        if plan.router:
            first, *others = plan.router
            against = {row: interference.advantage(found.scores, (row, first), resampling) for row in others}
            listings.append(skills.router_table(found, {row: over(row, tasks_of(row)) for row in plan.router}, against))
        if plan.growth:
            shared = [task for task in tasks_of(plan.growth[0]) if all(task in tasks_of(row) for row in plan.growth)]
            always = {row: over(row, shared) for row in plan.growth}
            listings.append(
                skills.growth_table(found, always, {row: over(row, tasks_of(row)) for row in plan.growth}, shared)
            )
            lines: dict[str, list] = {}
            for row in plan.growth:
                trained = found.provenance[row]
                lines.setdefault(trained["method"], []).append((len(trained["tasks"]), always[row]))
            lines = {method: sorted(line) for method, line in lines.items()}
            figures["growth"] = skill_figures.growth(lines, "growth")
        if plan.added:
            after = interference.matrix(found.scores, plan.added, resampling)
            listings.append(skills.added_table(found, after, plan.added))
    with step("write"), atomic_folder(written) as folder:
        for one in listings:
            (folder / f"{one.key}.md").write_text(tables.listing_markdown(one), encoding="utf-8")
            (folder / f"{one.key}.csv").write_text(tables.listing_csv(one), encoding="utf-8")
        for name, text in numbers.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, drawn in figures.items():
            (folder / f"{name}.svg").write_text(drawn, encoding="utf-8")
        said = "\n".join(f"- {claim}" for claim in claims)
        (folder / "claims.md").write_text(f"# What may be said of {report}\n\n{said}\n", encoding="utf-8")
    show_markdown("claims", said)
    return {"claims": claims}


if __name__ == "__main__":
    main()
