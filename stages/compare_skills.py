"""The report of an experiment on interference: matrix, router ablation, growth, a skill added later."""

from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import In, Out, main
from pipeline.evaluation.intervals import Resampling
from pipeline.reporting.compose_skills import compose_skills
from pipeline.reporting.files import bullets, claims_file, write_folder
from pipeline.reporting.planned import ReportSettings, read_plan
from pipeline.reporting.skills import SkillReport, read_skills


def run(
    *,
    report: str,
    plan: In,
    asked: SkillReport,
    settings: ReportSettings,
    scores: In,
    completions: In,
    adapters: In,
    written: Out,
) -> dict[str, object]:
    """Write the tables and figures that the experiment asks for, and the claims they allow."""
    resampling = Resampling(resamples=settings.resamples, seed=settings.seed)
    with step("read the cells"):
        cells = read_skills(
            read_plan(plan), asked.table, resampling, scores=scores, completions=completions, adapters=adapters
        )
    with step("compare"):
        files, claims = compose_skills(cells, asked)
    with step("write"):
        write_folder(written, files | claims_file(report, claims))
    show_markdown("claims", bullets(claims))
    return {"claims": claims}


if __name__ == "__main__":
    main()
