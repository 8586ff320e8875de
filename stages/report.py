"""The report of a run: metrics, tables, figures and pages, all from the run's files."""

from pathlib import Path

from pipeline.core.artifacts import atomic_folder, write_json, write_text
from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import STATE, In, Out, main
from pipeline.reporting import read as left
from pipeline.reporting.compose import compose
from pipeline.reporting.published import read_published_runs
from pipeline.reporting.statistics import published_statistics, statistics
from pipeline.reporting.tables.further import read_judged, with_weighed
from pipeline.reporting.tables.heads import read_heads


def run(
    *,
    settings: left.RunSettings,
    examples: In,
    scores: In,
    completions: In,
    curves: In,
    experts: In,
    adapters: list[In],
    base: In,
    dispatched: In,
    adapted: In,
    published: In,
    published_runs: In,
    metrics: Out,
    tables: Out,
    figures: Out,
    page: Out,
    site: Out,
    runs: Out,
) -> dict[str, object]:
    """Write what the run found, and what may be claimed from it."""
    with step("read the run"):
        records = left.read_records(STATE / "runs")
        papers = left.read_published(published)
        found = left.Run(
            settings=settings,
            scores=with_weighed(left.read_scores(settings, scores), scores / "weighed"),
            examples=left.read_examples(settings, examples),
            completions=left.read_completions(settings, completions),
            curves=left.read_curves(curves),
            provenance=left.read_provenance([experts, *adapters, adapted]),
            base=left.read_provenance([base.parent])[f"{base.parent.name}/{base.stem}"],
            decisions=left.read_dispatch(settings, dispatched),
            mixtures=left.read_mixtures(adapted),
            spectra=left.read_spectra(curves),
            gates=left.read_gates(adapters),
            published=papers,
            records=records,
            needs=left.read_needs(Path("dvc.lock"), records),
        )
        others = read_published_runs(published_runs, papers)
    with step("resample"):
        measured = statistics(found, read_judged(scores / "judged"), read_heads(scores / "heads"))
        measured_before = [(one, published_statistics(one)) for one in others]
    with step("draw and write"):
        report = compose(found, measured, measured_before)
        write_json(metrics, report.metrics)
        write_folder(tables, report.tables)
        write_folder(figures, report.figures)
        write_folder(site, within(report.pages, "site"))
        write_folder(runs, within(report.pages, "runs"))
        write_text(page, report.pages["index.html"])
    show_markdown("claims", "\n".join(f"- {claim}" for claim in report.claims))
    return {"claims": list(report.claims)}


def within(pages: dict[str, str], folder: str) -> dict[str, str]:
    """The pages of one folder, by their paths in it."""
    return {path.removeprefix(f"{folder}/"): text for path, text in pages.items() if path.startswith(f"{folder}/")}


def write_folder(folder: Path, files: dict[str, str]) -> None:
    with atomic_folder(folder) as temporary:
        for name, text in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
