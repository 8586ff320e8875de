"""From a run and its statistics to the report's files, as texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.types import Example
from pipeline.evaluation import verdicts
from pipeline.pictures.files import stored, thumbnail
from pipeline.reporting import claims, overview, plots, published, site
from pipeline.reporting.compose_claims import claims_page, headline, judges_of
from pipeline.reporting.compose_overview import chart, overview_page
from pipeline.reporting.figures.choose import figures_of
from pipeline.reporting.measured import Statistics
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run
from pipeline.reporting.site import Asked, Figure, Page, menu
from pipeline.reporting.tables import (
    ablations,
    answers,
    budgets,
    costs,
    further,
    heads,
    hyperparameters,
    kinds,
    learning,
    parameters,
    reft,
    variants,
)
from pipeline.reporting.tables.accuracy import comparison_of, trained_of
from pipeline.reporting.tables.claims import Judge, claims_metrics, claims_table
from pipeline.reporting.tables.comparison import Comparison, comparison_files, comparison_metrics
from pipeline.reporting.tables.further import dispatch_metrics
from pipeline.reporting.tables.listing import Listing, listing_files
from pipeline.reporting.wording import rounded

# Pages of figures: key, name in the menu, title, figures.
FAMILIES = (
    ("dispatch", "First pass", "The first pass: which expert", ("figure6",)),
    ("curves", "Learning", "Learning curves", ("figure4", "signal", "figure4-classifier", "figure9", "losses")),
    ("alpha", "Mixing", "How the experts are mixed", ("figure7", "searches", "scans")),
    ("spectra", "Spectra", "What the top singular components hold", ("figure10", "figure11", "changes")),
    ("gates", "Gates", "Which subspaces open", ("gates",)),
)


@dataclass(frozen=True)
class Report:
    """The files: metrics as JSON values; tables, figures and plots by file name, pages by path; claims: its sentences.

    headline: the few metrics that DVC shows.
    """

    metrics: dict[str, Any]
    headline: dict[str, Any]
    plots: dict[str, str]
    tables: dict[str, str]
    figures: dict[str, str]
    pages: dict[str, str]
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """What a run says of a table's claims. path: of the page that shows it; empty where it is the page itself."""

    name: str
    path: str
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """What the report shows of a published run. command: that makes it again. figures: under names of their own."""

    name: str
    command: str
    facts: Mapping[str, str]
    said: Sequence[Said]
    comparisons: Sequence[Comparison]
    listings: Sequence[Listing]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Parts:
    """What the report is made of: its tables, figures by name, claims, and published runs.

    listings: the tables that are no comparison of accuracies, by name in the menu. judges: this run and the published
    ones, each with what it says of the papers' claims; none where there is no list of claims.
    """

    run: Run
    comparisons: Sequence[Comparison]
    groups: Sequence[overview.Group]
    listings: Mapping[str, Listing]
    figures: Mapping[str, Figure]
    said: Sequence[Said]
    before: Sequence[Shown]
    judges: Sequence[Judge]

    @property
    def own_claims(self) -> Sequence[claims.Judged]:
        """What this run says of each of the papers' claims."""
        return self.judges[0].judged if self.judges else ()

    def claims(self, name: str) -> tuple[str, ...]:
        """The claims under a name in the menu."""
        return next((said.claims for said in self.said if said.name == name), ())


def compose(run: Run, statistics: Statistics, others: Sequence[tuple[Published, Statistics]] = ()) -> Report:
    """The whole report. What a run has not got (a router, a dispatcher) is left out.

    others: published runs, shown on a page of their own.
    """
    comparisons = [comparison_of(key, run, statistics) for key in statistics.comparisons]
    listings = listings_of(run, statistics, comparisons)
    parts = Parts(
        run=run,
        comparisons=comparisons,
        groups=overview.groups_of(run, comparisons),
        listings=listings,
        figures=figures_of(run, statistics),
        said=said_of(run, statistics, comparisons, listings),
        before=[published_section(other, measured) for other, measured in others],
        judges=judges_of(run, statistics, others),
    )
    asked = [questions(task, run) for task in run.settings.domains if task in run.examples]
    stages = costs.stage_runs(run)
    records = {stage.name: stage.record for stage in stages if stage.record}
    cost, passes = costs.cost_table(records), costs.passes_table(run)
    seconds = {name: round(record["seconds"], 1) for name, record in run.records.items()}
    spent = budgets.budgets_table(statistics.budgets, seconds)
    shown = [
        *pages_of(parts, asked),
        *published_page(parts.before, [other for other, _ in others]),
        Page(
            "runs/index.html",
            "Table 3, runs and cost",
            "Runs and what they cost",
            "runs.html",
            {"cost": cost, "passes": passes, "budgets": spent, "stages": stages},
        ),
    ]
    about = f"{run.base['base']}, profile {run.settings.profile}"
    grouped = menu.grouped(shown)
    pages = {page.path: site.render(page, grouped, {"about": about}) for page in shown} | site.static()
    pages |= {f"site/data/{task.task}.js": site.answers_script(task) for task in asked}
    for listing in (cost, passes, spent, costs.stages_table(records)):
        pages |= {f"runs/{name}": text for name, text in listing_files(listing).items()}
    drawn = [*parts.figures.values(), *(figure for section in parts.before for figure in section.figures)]
    drawn += [*headline(parts.judges), *chart(parts.groups)]
    listed = [*listings.values(), *([claims_table(parts.judges)] if parts.judges else [])]
    return Report(
        metrics=metrics(comparisons, run, statistics)
        | ({"claims": claims_metrics(parts.judges)} if parts.judges else {}),
        headline=overview.headline_metrics(parts.groups, parts.own_claims),
        plots=plots.plot_files(run, comparisons),
        tables={name: text for table in comparisons for name, text in comparison_files(table).items()}
        | {name: text for table in listed for name, text in listing_files(table).items()},
        figures={f"{figure.name}.svg": figure.svg for figure in drawn},
        pages=pages,
        claims=tuple(claim for said in parts.said for claim in said.claims),
    )


# ---- what is said and listed ----------------------------------------------------------------------------------------


def said_of(
    run: Run, statistics: Statistics, comparisons: Sequence[Comparison], listings: Mapping[str, Listing]
) -> list[Said]:
    """What the run says of the papers' claims, by table."""
    said = [Said(table.name, f"site/{table.key}.html", table.claims) for table in comparisons]
    said += [Said("Table 6", "site/table6.html", (listings["Table 6"].note,))] if "Table 6" in listings else []
    said.append(Said("First pass", "site/dispatch.html", claims.sentences(statistics.claims, "dispatch")))
    said.append(Said("Learning", "site/curves.html", learning.learning_claims(run.curves)))
    said.append(Said("Mixing", "site/alpha.html", variants.search_claims(run)))
    return [part for part in said if part.claims]


def listings_of(run: Run, statistics: Statistics, comparisons: Sequence[Comparison]) -> dict[str, Listing]:
    """The tables that are no comparison of accuracies, by name in the menu and in its order."""
    methods = run.settings.methods(run.plan)
    listings = measured_listings(run, statistics)
    if read := kinds.kinds_table(run):
        listings["Kinds"] = read
    if statistics.budgets:
        listings["Budgets"] = budgets.budgets_table(statistics.budgets)
    if (learnt := learning.learning_table(run.curves, statistics.budgets)).rows:
        listings["Training from rewards"] = learnt
    if len(statistics.further):
        listings["Further metrics"] = further.metrics_table(statistics.further)
    if table6 := hyperparameters.hyperparameter_table(methods, run.published):
        listings[table6.name] = table6
    listings["Parameters"] = parameters.parameter_table(run.provenance, run.base, run.published)
    listings["Settings"] = hyperparameters.settings_table(methods, ablations.variant_settings(run.plan, run.settings))
    if searches := variants.search_table(run, comparisons):
        listings["Searches"] = searches
    return listings


def measured_listings(run: Run, statistics: Statistics) -> dict[str, Listing]:
    """Those of them that a run's own report and that of a published run both have."""
    listings = reft_listings(run, statistics)
    if len(statistics.answers):
        listings["Answers"] = answers.answers_table(statistics.answers)
    if statistics.win_rates:
        listings["Win rates"] = further.win_rate_table(statistics.win_rates)
    return listings


def reft_listings(run: Run, statistics: Statistics) -> dict[str, Listing]:
    """The ReFT paper's tables that are no comparison of accuracies; those that the run has anything of."""
    listings: dict[str, Listing] = {}
    if statistics.heads:
        count = run.base["base_parameters"]
        listings["GLUE"] = heads.head_table(statistics.head_metrics, statistics.heads, count, run.published)
    trained = trained_of(reft.ALPACA_EVAL, run, {})
    if judged := reft.alpaca_eval_table(statistics.win_rates, run.plan.cells, trained, run.published):
        listings["AlpacaEval"] = judged
    return listings


def accuracy_metrics(comparisons: Sequence[Comparison], statistics: Statistics) -> dict[str, Any]:
    """The tables of accuracies, the rules without a model, what answers are like, and how often each verdict is given.

    A run's own report and a published run both have these.
    """
    words = [word for table in comparisons for word in table.frame["verdict"].dropna()]
    return {
        **{table.key: comparison_metrics(table) for table in comparisons},
        "rules": {
            task: {name: rounded(right._asdict()) for name, right in rules.items()}
            for task, rules in statistics.rules.items()
        },
        "answers": answers.answers_metrics(statistics.answers),
        "verdicts": verdicts.counts(words),
    }


def metrics(comparisons: Sequence[Comparison], run: Run, statistics: Statistics) -> dict[str, Any]:
    """Numbers of the run alone: nothing that differs between two equal runs."""
    numbers = accuracy_metrics(comparisons, statistics)
    if len(run.decisions):
        numbers["dispatch"] = dispatch_metrics(statistics.dispatch)
    if len(statistics.further):
        numbers["further"] = further.further_metrics(statistics.further)
    if len(statistics.head_metrics):
        numbers["heads"] = further.further_metrics(statistics.head_metrics)
    if statistics.win_rates:
        numbers["win_rates"] = further.win_rate_metrics(statistics.win_rates)
    keys = ("parameters", "parameters_without_router")
    numbers["parameters"] = {
        path: {key: adapter[key] for key in keys if adapter.get(key) is not None}
        for path, adapter in run.provenance.items()
    }
    return numbers


# ---- pages ----------------------------------------------------------------------------------------------------------


def pages_of(parts: Parts, asked: Sequence[Asked]) -> Iterator[Page]:
    """The pages of the run itself, in the order of the menu, but for its cost."""
    run = parts.run
    yield overview_page(run, parts.groups, parts.own_claims, facts(run))
    yield from claims_page(parts.judges)
    for table in parts.comparisons:
        content: dict[str, Any] = {"table": table, "figure": parts.figures[f"{table.key}-accuracy"]}
        yield Page(f"site/{table.key}.html", table.name, table.title, "comparison.html", content)
    for key, name, title, names in FAMILIES:
        if drawn := [parts.figures[figure] for figure in names if figure in parts.figures]:
            shown = {"figures": drawn, "claims": parts.claims(name)}
            yield Page(f"site/{key}.html", name, title, "figures.html", shown)
    content = {"tasks": [task.task for task in asked], "at_once": run.settings.report.samples}
    yield Page("site/completions.html", "Completions", "Completions", "completions.html", content)
    for name, listing in parts.listings.items():
        yield Page(f"site/{listing.key}.html", name, listing.title, "listing.html", {"table": listing})


def published_page(sections: Sequence[Shown], runs: Sequence[Published]) -> Iterator[Page]:
    """The page of published runs, where there are some."""
    if sections:
        content = {"sections": sections, "data": published.data_table(runs)}
        yield Page("site/published.html", "Published runs", "Published runs", "published.html", content)


def published_section(other: Published, statistics: Statistics) -> Shown:
    """What the report shows of a published run."""
    run = other.run
    comparisons = [comparison_of(key, run, statistics) for key in statistics.comparisons]
    said = [Said(table.name, "", table.claims) for table in comparisons]
    said += [Said(experiment.key.replace("_", " "), "", experiment.claims) for experiment in other.experiments]
    said.append(Said("Learning", "", learning.learning_claims(run.curves)))
    said.append(Said("Mixing", "", variants.search_claims(run)))
    listings = [listing for experiment in other.experiments for listing in experiment.listings]
    listings += published_listings(other, statistics)
    drawn = [figure for experiment in other.experiments for figure in experiment.figures]
    drawn += figures_of(run, statistics).values()
    return Shown(
        name=other.name,
        command=other.about["command"],
        facts=other.facts,
        said=[part for part in said if part.claims],
        comparisons=[replace(table, frame=table.frame.assign(cells="")) for table in comparisons],  # no answers to show
        listings=listings,
        figures=[replace(figure, name=f"published-{other.name}-{figure.name}") for figure in drawn],
    )


def published_listings(other: Published, statistics: Statistics) -> list[Listing]:
    """The tables of a published run that are no comparison of accuracies, but for those of experiments."""
    run = other.run
    trained = {path: one for path, one in statistics.budgets.items() if path in run.provenance}
    listings = [*measured_listings(run, statistics).values(), learning.learning_table(run.curves, trained)]
    listings.append(budgets.budgets_table(trained, other.about["seconds"]))
    return [listing for listing in listings if listing.rows]


def facts(run: Run) -> dict[str, Any]:
    """What the run was, in a few words each."""
    tested = {task: len(examples) for task, examples in run.examples.items()}
    return {
        "base model": run.base["base"],
        "its parameters": f"{run.base['base_parameters'] / 1e6:.4g} million",
        "profile": run.settings.profile,
        "trained on": ", ".join(run.settings.tasks_of("trained")),
        "unseen": ", ".join(run.settings.tasks_of("unseen")),
        "test prompts": f"{sum(tested.values())} of {len(tested)} tasks",
        "intervals": f"95 %, {run.settings.report.resamples} resamples",
    }


def shown(example: Example) -> list[str]:
    """The pictures of an example, small enough for a page."""
    return [thumbnail(stored(picture)) for picture in example.images]


def questions(task: str, run: Run) -> Asked:
    """A task's test prompts, and every cell's answers to them."""
    examples = run.examples[task]
    scores = {name: frame.set_index("id") for name, frame in run.scores[run.scores["task"] == task].groupby("cell")}
    cells = []
    for name, cell in run.plan.cells.items():
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
    prompts = [
        (example.id, example.messages[-1]["content"], example.target, *([shown(example)] if example.images else []))
        for example in examples
    ]
    return Asked(task, run.settings.domains.get(task, ""), prompts, cells)
