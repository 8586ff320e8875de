"""A table of accuracies from a run and its statistics: its rows, with the paper's numbers and claims beside."""

from collections.abc import Mapping

from pipeline.reporting import claims, papers
from pipeline.reporting.budgets import trainings_of
from pipeline.reporting.measured import Statistics
from pipeline.reporting.read import Run
from pipeline.reporting.tables import ablations, reft, variants
from pipeline.reporting.tables.comparison import Comparison, Trained


def comparison_of(key: str, run: Run, statistics: Statistics) -> Comparison:
    """The table of a run."""
    frame = statistics.comparisons[key]
    domains = {task: run.settings.domains.get(task, "") for task in frame["task"] if task in run.examples}
    counts: Mapping[str, str] = {}
    if key in reft.SUBSETS:
        domains = {name: reft.DOMAINS[key] for name in frame["task"] if name != reft.MEAN}
        published, benchmarks, counts = reft.published_of(key, run.published)
        frame = frame.assign(cells="")  # the completions are of the whole task
    elif key == "table4":
        published, benchmarks = ablations.published_of(run, list(domains))
        rows = ablations.published_rows(run)
        counts = {row: f"{line['params_m']} million" for row, line in rows.items() if "params_m" in line}
    else:
        published, benchmarks = papers.published_of(key, domains, run.settings.tasks_of("unseen"), run.published)
    return Comparison(
        key=key,
        title=papers.TITLES.get(key, key.replace("_", " ")),
        frame=frame,
        domains=domains,
        trained=trained_of(key, run, counts),
        published=published,
        benchmarks=benchmarks,
        claims=claims_of(key, run, statistics),
        labels=labels_of(key, run),
        trainings=trainings_of(run, key, statistics.budgets),
    )


def claims_of(key: str, run: Run, statistics: Statistics) -> tuple[str, ...]:
    """What the run says of the papers' claims on the table, and what a reader must know beside."""
    return variants.moved_to(key, run) + claims.sentences(statistics.claims, key)


def labels_of(key: str, run: Run) -> dict[str, str]:
    """What a table's rows are called where ``papers.ROWS`` does not say it."""
    if key == "table4":
        return {row: variant.label for row, variant in ablations.rows_of(run).items()}
    return variants.base_label(key, run)


def trained_of(key: str, run: Run, counts: Mapping[str, str]) -> dict[str, Trained]:
    """How many parameters each row of a table trains; empty if none does. counts: row to the paper's own count."""
    cells = {cell.row: cell for cell in reversed(run.plan.cells_of(key).values())}
    known = {**run.provenance, "base/base": run.base}
    sources = {row: known.get(run.plan.trained_for(cell), {}) for row, cell in cells.items()}
    trained = {
        row: Trained(
            source["parameters"],
            source.get("parameters_without_router"),
            run.base["base_parameters"],
            counts.get(row),
        )
        for row, source in sources.items()
        if "parameters" in source
    }
    return trained if set(trained) - {"base"} else {}
