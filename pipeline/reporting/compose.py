"""From a run and its statistics to the report's files, as texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from pipeline.reporting import (
    ablations,
    claims,
    figures,
    further,
    heads,
    hyperparameters,
    learning,
    published,
    published_of_variants,
    reft,
    runs,
    site,
    tables,
    trained,
    variants,
)
from pipeline.reporting.published import Published
from pipeline.reporting.run import Run
from pipeline.reporting.site import Asked, Figure, Page
from pipeline.reporting.tables import Comparison


@dataclass(frozen=True)
class Statistics:
    """What ``pipeline.evaluation`` says of a run.

    comparisons: table to its rows against the base model; rivals: table to its rows against the row its claim is
    about; versus: table to each row that claims given as data compare with, and the table against it.
    dispatch: the dispatchers against the prompt. baselines: task to what needs no model. further: metrics beside
    accuracy, against the base model; win_rates: judges' of cells; heads: what classification heads were, and
    head_metrics, how well they label. All may be empty. subsets: table to the baselines of its columns, where those
    are the subsets of one task.
    """

    comparisons: Mapping[str, pd.DataFrame]
    rivals: Mapping[str, pd.DataFrame]
    versus: Mapping[str, Mapping[str, pd.DataFrame]]
    dispatch: pd.DataFrame
    baselines: Mapping[str, Mapping[str, float]]
    further: pd.DataFrame = field(default_factory=pd.DataFrame)
    win_rates: Sequence[Mapping[str, Any]] = ()
    heads: Sequence[Mapping[str, Any]] = ()
    head_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    subsets: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)


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
    if statistics.win_rates:
        listings = {"Win rates": further.win_rate_table(statistics.win_rates)} | listings
    if len(statistics.further):
        listings = {"Further metrics": further.metrics_table(statistics.further)} | listings
    listings = reft_listings(run, statistics) | listings
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
    learning: tables.Listing
    figures: Sequence[Figure]


def published_section(one: Published, statistics: Statistics) -> Shown:
    comparisons = [comparison(key, one.run, statistics) for key in statistics.comparisons]
    drawn = drawings(one.run, statistics).values()
    tabled = [Said(name_of(part), "", part.claims) for part in comparisons]
    unrewarded = learning.learning_claims(one.run.curves)
    return Shown(
        name=one.name,
        facts=one.facts,
        said=[said for said in (*tabled, Said("Learning", "", unrewarded)) if said.claims],
        comparisons=[replace(part, frame=part.frame.assign(cells="")) for part in comparisons],  # no answers to lead to
        learning=learning.learning_table(one.run.curves),
        figures=[replace(figure, name=f"published-{one.name}-{figure.name}") for figure in drawn],
    )


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
        title=tables.TITLES.get(key, key.replace("_", " ")),
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


def drawings(run: Run, statistics: Statistics) -> dict[str, Figure]:
    """The figures by name."""
    drawn: dict[str, Figure] = {}

    def add(name: str, svg: str, caption: str) -> None:
        drawn[name] = Figure(name, svg, caption)

    for key, frame in statistics.comparisons.items():
        caption = "Accuracy on the test split with its 95 % interval; dashed: the base model."
        name = f"{key}-accuracy"
        add(name, figures.accuracies(frame, {**tables.ROWS, **labels_of(key, run)}, name), caption)
    base = base_accuracies(run, statistics)
    varied = {name for entries in run.settings.ablations.values() for name in entries}
    curves = {name: curve for name, curve in run.curves.items() if name not in varied}
    rewarded = learning.rewarded(curves)
    classifier = {name: curve for name, curve in rewarded.items() if name == "classifier"}
    experts = {name.removeprefix("svf-"): curve for name, curve in rewarded.items() if name.startswith("svf-")}
    every = learning.rewarded(run.curves)
    others = {name: curve for name, curve in every.items() if name != "classifier" and not name.startswith("svf-")}
    tasks = {name: run.provenance.get(f"experts/svf-{name}", {}).get("task") for name in experts}
    place = {task: number for number, task in enumerate(run.settings.domains)}
    experts = dict(sorted(experts.items(), key=lambda one: place.get(tasks[one[0]] or "", len(place))))
    lines = {name: base[task] for name, task in tasks.items() if task in base}
    if experts:
        caption = (
            "Figure 4. SVF experts learning by REINFORCE: above, the mean reward of the answers sampled in training; "
            "below, accuracy on validation prompts. Dashed: the base model on the test split. Dot: the checkpoint "
            "chosen, by validation. Pale: other coefficients λ of the divergence from the base model."
        )
        add("figure4", figures.learning_curves(experts, lines, "figure4"), caption)
    if classifier:
        caption = "The classification expert, trained the same way to name a prompt's domain."
        add("figure4-classifier", figures.learning_curves(classifier, {}, "figure4-classifier"), caption)
    if others:
        caption = (
            "Figure 9. Other methods trained by REINFORCE, as the experts are: above, the mean reward of the sampled "
            "answers; below, accuracy on validation prompts. Dashed: the base model on the test split. In the paper, "
            "LoRA trained so collapses."
        )
        on = {name: run.provenance.get(f"experts/{name}", {}).get("task") for name in others}
        lines = {name: base[task] for name, task in on.items() if task in base}
        add("figure9", figures.learning_curves(others, lines, "figure9"), caption)
    supervised = {name: curve for name, curve in curves.items() if name not in rewarded}
    if supervised:
        caption = "Methods trained by next-token prediction. Dot: the checkpoint chosen, by validation."
        add("losses", figures.loss_curves(supervised, "losses"), caption)
    if len(run.decisions):
        caption = (
            "Figure 6. Test prompts by their true domain (rows) and the domain named (columns); 'others' leaves the "
            "base model as it is."
        )
        labels = tables.DISPATCHERS
        svg = figures.confusions(run.decisions, list(run.settings.trained), labels, "figure6")
        add("figure6", svg, caption)
    mixtures = {name: one for name, one in run.mixtures.items() if name not in run.settings.searches}
    if mixtures:
        mixtures = dict(sorted(mixtures.items(), key=lambda one: place.get(one[1]["task"], len(place))))
        caption = "Figure 7. What the search found on a few held-out prompts of each unseen task."
        add("figure7", figures.alphas(mixtures, "figure7"), caption)
    if run.settings.searches and run.mixtures:
        caption = (
            "Searches for α: the best accuracy so far on the few prompts, against the prompts run for it. A searcher "
            "is better where its line is higher, further to the left."
        )
        add("searches", figures.searches(run.mixtures, "searches"), caption)
    for number, (name, frame) in enumerate(run.spectra.items()):
        of = run.base["base"] if name == "base" else variants.origin(name, run)
        caption = (
            f"Figure {10 + number}. The share of Σσ that the top singular components hold, by kind of matrix and "
            f"layer, of {of}. On the dashed line all components weigh the same."
        )
        add(f"figure{10 + number}", figures.spectra(frame, f"figure{10 + number}"), caption)
    if run.spectra:
        caption = (
            "What share of an expert's change, Σ |z − 1|, lies in the top components, the mean over layers; grey: of "
            "Σσ. On the dashed line all components were changed alike."
        )
        add("changes", figures.changes(next(iter(run.spectra.values())), "changes"), caption)
    if run.gates is not None:
        caption = "CS-ReFT: the router's mean gate on validation prompts; 0 is closed, 1 is open."
        add("gates", figures.gates(run.gates, "gates"), caption)
    return drawn


def base_accuracies(run: Run, statistics: Statistics) -> dict[str, float]:
    """The base model's accuracy on every task it was measured on; in some tables, ``base`` is another one."""
    others = {table for cell in run.settings.cells.values() if cell.base != "base" for table in cell.table}
    frames = [frame[frame["row"] == "base"] for key, frame in statistics.comparisons.items() if key not in others]
    return {task: mean for frame in frames for task, mean in zip(frame["task"], frame["mean"], strict=True)}


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
