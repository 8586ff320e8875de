"""The report of benchmarks alone, for a profile without the rest of the graph: the ReFT paper's tables."""

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.reporting.compose import measured_listings
from pipeline.reporting.figures.draw import accuracies
from pipeline.reporting.measured import Statistics
from pipeline.reporting.papers import ROWS
from pipeline.reporting.read import Run
from pipeline.reporting.tables.accuracy import comparison_of
from pipeline.reporting.tables.comparison import comparison_files
from pipeline.reporting.tables.listing import listing_files


class BenchmarkReport(Section, at="benchmark_reports.{report}"):
    """What a report of benchmarks shows.

    tables: keys of ``tables.reft.SUBSETS``; the tables of heads and judges are shown wherever there are some.
    adapters: folder of ``artifacts`` with what was trained.
    """

    tables: tuple[str, ...]
    adapters: str


def compose_benchmarks(
    run: Run, statistics: Statistics, asked: BenchmarkReport, report: str
) -> tuple[dict[str, str], list[str]]:
    """The report's files, by name, and the claims that the run allows. report: its name, for the error."""
    comparisons = [comparison_of(key, run, statistics) for key in asked.tables if key in statistics.comparisons]
    listings = measured_listings(run, statistics).values()
    if not comparisons and not listings:
        raise UserError(
            f"params.yaml: expected cells of the tables {', '.join(asked.tables) or 'none'}, heads or judged cells "
            f"for '{report}', got none; add some"
        )
    files: dict[str, str] = {}
    for comparison in comparisons:
        files |= comparison_files(comparison)
        files[f"{comparison.key}.svg"] = accuracies(comparison.frame, ROWS, comparison.key)
    for listing in listings:
        files |= listing_files(listing)
    return files, [claim for comparison in comparisons for claim in comparison.claims]
