"""From a run and its statistics to the report's files, as texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.reporting import claims, published, site, trained
from pipeline.reporting.figures.choose import drawings
from pipeline.reporting.measured import Statistics
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run
from pipeline.reporting.site import Asked, Figure, Page
from pipeline.reporting.tables import ablations, further, heads, hyperparameters, learning, reft, variants
from pipeline.reporting.tables import costs as runs
from pipeline.reporting.tables import listing as tables
from pipeline.reporting.tables.accuracy import comparison, name_of
from pipeline.reporting.tables.listing import Comparison


@dataclass(frozen=True)
class Report:
    """The files: metrics as JSON values; tables and figures by file name, pages by path; claims: its sentences."""

    metrics: dict[str, Any]
    tables: dict[str, str]
    figures: dict[str, str]
    pages: dict[str, str]
    claims: tuple[str, ...]


def compose(run: Run, statistics: Statistics, others: Sequence[tuple[Published, Statistics]] = ()) -> Report:
    """Build the whole report. What a run has not got (a router, a dispatcher) is left out.

    others: published runs, shown on a page of their own.
    """
    comparisons = [comparison(key, run, statistics) for key in statistics.comparisons]
    dispatch = (claims.dispatch_claim(statistics.dispatch),) if len(run.decisions) else ()
    unrewarded = learning.learning_claims(run.curves)
    drawn = drawings(run, statistics)
    listings = {
        "Parameters": tables.parameter_table(run.provenance, run.base, run.published),
        "Settings": hyperparameters.settings_table(run.settings.methods, ablations.variant_settings(run.settings)),
    }
    if used := hyperparameters.hyperparameter_table(run.settings.methods, run.published):
        listings = {name_of(used): used} | listings
    if searches := variants.search_table(run, comparisons):
        listings["Searches"] = searches
    if len(statistics.further):
        listings = {"Further metrics": further.metrics_table(statistics.further)} | listings
    listings = measured_listings(run, statistics) | listings
    stages = runs.stage_runs(run)
    records = {one.name: one.record for one in stages if one.record}
    varying = [runs.cost_table(records), runs.passes_table(run), runs.stages_table(records)]
    said = [Said(name_of(one), f"site/{one.key}.html", one.claims) for one in comparisons]
    said += [Said("Table 6", "site/table6.html", (used.note,))] if used else []
    said += [Said("First pass", "site/dispatch.html", dispatch), Said("Learning", "site/curves.html", unrewarded)]
    said = [one for one in said if one.claims]
    shown = [
        Page(
            "index.html",
            "Overview",
            f"What adapting {run.base['base']} brings",
            "overview.html",
            {"facts": facts(run), "said": said, "comparisons": comparisons},
        )
    ]
    shown += [
        Page(f"site/{one.key}.html", name_of(one), one.title, "comparison.html", {"one": one, "figure": figure})
        for one in comparisons
        if (figure := drawn[f"{one.key}-accuracy"])
    ]
    for key, name, title, names in FAMILIES:
        if found := [drawn[one] for one in names if one in drawn]:
            content: dict[str, Any] = {
                "figures": found,
                "claims": {"dispatch": dispatch, "curves": unrewarded}.get(key),
            }
            shown.append(Page(f"site/{key}.html", name, title, "figures.html", content))
    asked = [questions(task, run) for task in run.settings.domains if task in run.examples]
    content = {"tasks": [one.task for one in asked], "at_once": run.settings.report.samples}
    shown.append(Page("site/completions.html", "Completions", "Completions", "completions.html", content))
    for name, one in listings.items():
        shown.append(Page(f"site/{one.key}.html", name, one.title, "listing.html", {"one": one}))
    before = [published_section(one, measured) for one, measured in others]
    drawn |= {figure.name: figure for section in before for figure in section.figures}
    if before:
        content = {"sections": before, "data": published.data_table([one for one, _ in others])}
        shown.append(Page("site/published.html", "Published runs", "Published runs", "published.html", content))
    cost, passes, _ = varying
    content = {"cost": cost, "passes": passes, "stages": stages}
    shown.append(Page("runs/index.html", "Table 3, runs and cost", "Runs and what they cost", "runs.html", content))

    about = f"{run.base['base']}, profile {run.settings.profile}"
    pages = {page.path: site.render(page, shown, {"about": about}) for page in shown} | site.static()
    pages |= {f"site/data/{one.task}.js": site.answers_script(one) for one in asked}
    pages |= {f"runs/{one.key}.{suffix}": write(one) for one in varying for suffix, write in LISTED}
    return Report(
        metrics=metrics(comparisons, run, statistics),
        tables={f"{one.key}.{suffix}": write(one) for one in comparisons for suffix, write in COMPARED}
        | {f"{one.key}.{suffix}": write(one) for one in listings.values() for suffix, write in LISTED},
        figures={f"{one.name}.svg": one.svg for one in drawn.values()},
        pages=pages,
        claims=tuple(claim for one in said for claim in one.claims),
    )


# How a table becomes a file, by suffix.
COMPARED = (("md", tables.comparison_markdown), ("csv", tables.comparison_csv))
LISTED = (("md", tables.listing_markdown), ("csv", tables.listing_csv))
# Pages of figures: key, name in the menu, title, figures.
FAMILIES = (
    ("dispatch", "First pass", "The first pass: which expert", ("figure6",)),
    ("curves", "Learning", "Learning curves", ("figure4", "figure4-classifier", "figure9", "losses")),
    ("alpha", "Mixing", "How the experts are mixed", ("figure7", "searches")),
    ("spectra", "Spectra", "What the top singular components hold", ("figure10", "figure11", "changes")),
    ("gates", "Gates", "Which subspaces open", ("gates",)),
)


@dataclass(frozen=True)
class Said:
    """What a run says of a table's claims. path: of the page that shows it; empty where it is the page itself."""

    name: str
    path: str
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """What the report shows of a published run. figures: under names of their own."""

    name: str
    facts: Mapping[str, str]
    said: Sequence[Said]
    comparisons: Sequence[Comparison]
    listings: Sequence[tables.Listing]
    figures: Sequence[Figure]


def published_section(one: Published, statistics: Statistics) -> Shown:
    comparisons = [comparison(key, one.run, statistics) for key in statistics.comparisons]
    drawn = drawings(one.run, statistics).values()
    tabled = [Said(name_of(part), "", part.claims) for part in comparisons]
    tabled += [Said(part.key.replace("_", " "), "", part.claims) for part in one.experiments]
    unrewarded = learning.learning_claims(one.run.curves)
    listings = [listing for part in one.experiments for listing in part.listings]
    listings += [*measured_listings(one.run, statistics).values(), learning.learning_table(one.run.curves)]
    figures = [*(figure for part in one.experiments for figure in part.figures), *drawn]
    return Shown(
        name=one.name,
        facts=one.facts,
        said=[said for said in (*tabled, Said("Learning", "", unrewarded)) if said.claims],
        comparisons=[replace(part, frame=part.frame.assign(cells="")) for part in comparisons],  # no answers to lead to
        listings=[listing for listing in listings if listing.rows],
        figures=[replace(figure, name=f"published-{one.name}-{figure.name}") for figure in figures],
    )


def reft_listings(run: Run, statistics: Statistics) -> dict[str, tables.Listing]:
    """The ReFT paper's tables that are no comparison of accuracies, by name; those that the run has anything of."""
    found: dict[str, tables.Listing] = {}
    if statistics.heads:
        share = run.base["base_parameters"]
        found["GLUE"] = heads.head_table(statistics.head_metrics, statistics.heads, share, run.published)
    counted = trained.trained_of(reft.ALPACA_EVAL, run, {})
    if judged := reft.alpaca_eval_table(statistics.win_rates, run.settings.cells, counted, run.published):
        found["AlpacaEval"] = judged
    return found


def measured_listings(run: Run, statistics: Statistics) -> dict[str, tables.Listing]:
    """All tables that are no comparison of accuracies, by name, and that a run's own and a published one both have."""
    found = reft_listings(run, statistics)
    if statistics.win_rates:
        found["Win rates"] = further.win_rate_table(statistics.win_rates)
    return found


def metrics(comparisons: list[Comparison], run: Run, statistics: Statistics) -> dict[str, Any]:
    """Numbers of the run alone: nothing that differs between two equal runs."""
    found: dict[str, Any] = {one.key: tables.comparison_metrics(one) for one in comparisons}
    found["baselines"] = {task: tables.rounded(one) for task, one in statistics.baselines.items() if one}
    if len(run.decisions):
        found["dispatch"] = tables.dispatch_metrics(statistics.dispatch)
    if len(statistics.further):
        found["further"] = further.further_metrics(statistics.further)
    if len(statistics.head_metrics):
        found["heads"] = further.further_metrics(statistics.head_metrics)
    if statistics.win_rates:
        found["win_rates"] = further.win_rate_metrics(statistics.win_rates)
    keys = ("parameters", "parameters_without_router")
    found["parameters"] = {
        name: {key: one[key] for key in keys if one.get(key) is not None} for name, one in run.provenance.items()
    }
    return found


def facts(run: Run) -> dict[str, Any]:
    tested = {task: len(examples) for task, examples in run.examples.items()}
    return {
        "base model": run.base["base"],
        "its parameters": f"{run.base['base_parameters'] / 1e6:.4g} million",
        "profile": run.settings.profile,
        "trained on": ", ".join(run.settings.trained.values()),
        "unseen": ", ".join(run.settings.unseen.values()),
        "test prompts": f"{sum(tested.values())} of {len(tested)} tasks",
        "intervals": f"95 %, {run.settings.report.resamples} resamples",
    }


def questions(task: str, run: Run) -> Asked:
    """A task's test prompts, and every cell's answers to them."""
    examples = run.examples[task]
    scores = {name: frame.set_index("id") for name, frame in run.scores[run.scores["task"] == task].groupby("cell")}
    cells = []
    for name, cell in run.settings.cells.items():
        if cell.task != task:
            continue
        scored = scores[name]
        answers = [
            (
                run.completions[name][example.id].text,
                str(scored.at[example.id, "answer"]) if scored.at[example.id, "parsed"] else None,
                bool(scored.at[example.id, "correct"]),
            )
            for example in examples
        ]
        cells.append(site.Answers(name, cell.row, cell.seed, answers))
    prompts = [(example.id, example.messages[-1]["content"], example.target) for example in examples]
    return Asked(task, run.settings.domains.get(task, ""), prompts, cells)
