"""The report of benchmarks alone, for a profile without the rest of the graph: the ReFT paper's tables."""

from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import In, Out, main
from pipeline.reporting import read
from pipeline.reporting.compose_benchmarks import BenchmarkReport, compose_benchmarks
from pipeline.reporting.files import bullets, claims_file, write_folder
from pipeline.reporting.planned import RunSettings, read_plan
from pipeline.reporting.published import NO_SCORES
from pipeline.reporting.statistics import statistics
from pipeline.reporting.tables.further import read_judged
from pipeline.reporting.tables.heads import read_heads


def run(
    *,
    report: str,
    plan: In,
    asked: BenchmarkReport,
    settings: RunSettings,
    examples: In,
    scores: In,
    adapters: In,
    base: In,
    published: In,
    written: Out,
) -> dict[str, object]:
    """Write the tables that are asked for, and those of heads and judges where there are some; figures and claims."""
    with step("read the cells"):
        whole = read_plan(plan)
        chosen = whole.of(whole.cells_of(*asked.tables))
        prompts = read.read_examples(chosen, examples)
        cells = read.Run(
            plan=chosen,
            settings=settings,
            scores=read.read_scores(chosen.cells, scores, prompts) if chosen.cells else NO_SCORES,
            examples=prompts,
            rules=read.read_rules([task for task in chosen.heuristics if task in prompts], scores),
            trained_on=read.count_training(chosen, examples),
            provenance=read.read_provenance(chosen, read.Artifacts([adapters])),
            base=read.read_base(base),
            published=read.read_published(published),
        )
    with step("compare"):
        judged, heads = read_judged(scores / "judged", whole.judge), read_heads(scores / "heads", whole.train_head)
        files, claims = compose_benchmarks(cells, statistics(cells, judged, heads), asked, report)
    with step("write"):
        write_folder(written, files | claims_file(report, claims))
    show_markdown("claims", bullets(claims))
    return {"claims": claims}


if __name__ == "__main__":
    main()
