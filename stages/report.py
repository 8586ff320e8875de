"""The report of a run: metrics, tables, figures and pages, all from the files that the plan names."""

from pathlib import Path

from pipeline.core.artifacts import write_json
from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import STATE, In, Out, main
from pipeline.reporting import read
from pipeline.reporting.compose import compose
from pipeline.reporting.files import bullets, write_folder, write_pages
from pipeline.reporting.measured import Statistics
from pipeline.reporting.planned import RunSettings, read_plan
from pipeline.reporting.published import read_published_runs
from pipeline.reporting.statistics import published_statistics, statistics
from pipeline.reporting.tables.further import read_judged, with_weighed
from pipeline.reporting.tables.heads import read_heads


def run(
    *,
    settings: RunSettings,
    plan: In,
    examples: In,
    scores: In,
    completions: In,
    curves: In,
    adapters: list[In],
    base: In,
    published: In,
    published_runs: In,
    headline: Out,
    metrics: Out,
    plots: Out,
    tables: Out,
    figures: Out,
    page: Out,
    site: Out,
    runs: Out,
) -> dict[str, object]:
    """Write what the run found, and what may be claimed from it. adapters: the folders of all that was trained."""
    with step("read the run"):
        named = read_plan(plan)
        artifacts, records = read.Artifacts([*adapters, curves]), read.read_records(STATE / "runs", named.stages)
        asked, drawn = read.read_examples(named, examples), read.read_curves(named, artifacts)
        left = read.Run(
            plan=named,
            settings=settings,
            scores=with_weighed(read.read_scores(named.cells, scores, asked), scores / "weighed", named.weigh),
            examples=asked,
            completions=read.read_completions(named, completions),
            rules=read.read_rules(named.heuristics, scores),
            trained_on=read.count_training(named, examples),
            curves=read.kept_curves(drawn),
            sweeps=read.swept_curves(drawn),
            provenance=read.read_provenance(named, artifacts),
            base=read.read_base(base),
            decisions=read.read_dispatch(named, settings, artifacts),
            mixtures=read.read_mixtures(named, artifacts),
            spectra=read.read_spectra(named, curves),
            gates=read.read_gates(named, artifacts),
            published=read.read_published(published),
            records=records,
            needs=read.read_needs(Path("dvc.lock"), records, named.stages),
        )
    with step("resample"):
        measured = _measured(left, scores)
        before = [(other, published_statistics(other)) for other in read_published_runs(published_runs, left.published)]
    with step("draw and write"):
        report = compose(left, measured, before)
        write_json(headline, report.headline)
        write_json(metrics, report.metrics)
        for folder, files in ((plots, report.plots), (tables, report.tables), (figures, report.figures)):
            write_folder(folder, files)
        write_pages(report.pages, page=page, site=site, runs=runs)
    show_markdown("claims", bullets(report.claims))
    return {"claims": list(report.claims)}


def _measured(left: read.Run, scores: Path) -> Statistics:
    """The run's numbers, with those that stand beside its scores: judges' preferences and heads' labels."""
    judged = read_judged(scores / "judged", left.plan.judge)
    return statistics(left, judged, read_heads(scores / "heads", left.plan.train_head))


if __name__ == "__main__":
    main()
