"""A table of accuracies from a run and its statistics: its rows, the paper's numbers and claims beside."""

from collections.abc import Mapping

from pipeline.reporting import claims, published_of_variants, trained
from pipeline.reporting import papers as names
from pipeline.reporting.measured import Statistics
from pipeline.reporting.read import Run
from pipeline.reporting.tables import ablations, reft, variants
from pipeline.reporting.tables import listing as tables
from pipeline.reporting.tables.listing import Comparison


def name_of(one: Comparison | tables.Listing) -> str:
    """A table's name in the menu: its title up to the first full stop."""
    return one.title.partition(". ")[0]


def comparison(key: str, run: Run, statistics: Statistics) -> Comparison:
    settings, frame = run.settings, statistics.comparisons[key]
    rival = statistics.rivals.get(key, frame)
    domains = {task: settings.domains.get(task, "") for task in frame["task"] if task in run.examples}
    papers: Mapping[str, str] = {}
    if key in reft.SUBSETS:
        domains = {name: reft.DOMAINS[key] for name in frame["task"] if name != reft.MEAN}
        published, benchmarks, papers = reft.published_of(key, run.published)
        said = reft.claims(key, frame, rival, domains)
        frame = frame.assign(cells="")  # the completions are of the whole task
    elif key == "table4":
        published, benchmarks = ablations.published_of(settings, run.published, list(domains))
        rows = ablations.published_rows(settings, run.published)
        papers = {row: f"{line['params_m']} million" for row, line in rows.items() if "params_m" in line}
        said = ablations.claims(settings, frame, rival, list(domains))
    else:
        if key in published_of_variants.SECTIONS:
            published, benchmarks = published_of_variants.published_of(key, domains, run.published)
        else:
            published, benchmarks = tables.published_of(key, domains, settings.unseen.values(), run.published)
        said = (
            variants.moved_to(key, run)
            + claims.claims_of(key, frame, rival, domains)
            + claims.variant_claims(key, frame, statistics.versus.get(key, {}), domains)
        )
    said += ablations.lengths(settings, key) if key in ("table4", "table7") else ()
    return Comparison(
        key=key,
        title=names.TITLES.get(key, key.replace("_", " ")),
        frame=frame,
        domains=domains,
        baselines=statistics.subsets.get(key, statistics.baselines),
        trained=trained.trained_of(key, run, papers),
        published=published,
        benchmarks=benchmarks,
        claims=said,
        labels=labels_of(key, run),
    )


def labels_of(key: str, run: Run) -> dict[str, str]:
    """What a table's rows are called where their names alone do not say it."""
    if key == "table4":
        return {row: one.label for row, one in ablations.rows_of(run.settings).items()}
    return variants.base_label(key, run)
