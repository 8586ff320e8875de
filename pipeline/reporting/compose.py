"""From a run and its statistics to the report's files, as texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.reporting import figures, site, tables
from pipeline.reporting.run import Run
from pipeline.reporting.tables import Comparison


@dataclass(frozen=True)
class Statistics:
    """What ``pipeline.evaluation`` says of a run.

    comparisons: table to its rows against the base model; rivals: table to its rows against the row its claim is
    about. dispatch: the dispatchers against the prompt. baselines: task to what needs no model.
    """

    comparisons: Mapping[str, pd.DataFrame]
    rivals: Mapping[str, pd.DataFrame]
    dispatch: pd.DataFrame
    baselines: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Report:
    """The files: metrics as JSON values, tables and figures by file name, the page as HTML; claims: its sentences."""

    metrics: dict[str, Any]
    tables: dict[str, str]
    figures: dict[str, str]
    page: str
    claims: tuple[str, ...]


def compose(run: Run, statistics: Statistics) -> Report:
    """Build the whole report. What a run has not got (a router, a dispatcher) is left out."""
    comparisons = [comparison(key, run, statistics) for key in statistics.comparisons]
    dispatch_claim = tables.dispatch_claim(statistics.dispatch)
    drawn = drawings(run, statistics)
    listings = [
        tables.parameter_table(run.provenance, run.base, run.published),
        tables.settings_table(run.settings.methods, run.published),
        tables.cost_table(run.records),
    ]
    parameters, settings, cost = listings
    claims = tuple(one.claim for one in comparisons if one.claim) + ((dispatch_claim,) if len(run.decisions) else ())
    parts = [site.Part("claims", "What this run shows", site.points(claims))]
    parts += [
        site.Part(one.key, one.title, site.comparison(one) + shown(drawn, f"{one.key}-accuracy")) for one in comparisons
    ]
    if len(run.decisions):
        parts.append(
            site.Part(
                "dispatch",
                "The first pass: which expert",
                site.paragraph(dispatch_claim, "claim") + shown(drawn, "figure6"),
            )
        )
    for anchor, title, names in (
        ("curves", "Learning curves", ("figure4", "figure4-classifier", "losses")),
        ("alpha", "How the experts are mixed", ("figure7",)),
        ("gates", "Which subspaces open", ("gates",)),
    ):
        html = "".join(shown(drawn, name) for name in names)
        if html:
            parts.append(site.Part(anchor, title, html))
    parts += [
        site.Part("samples", "Completions", site.paragraph(SAMPLES, "note") + site.samples(samples(run))),
        site.Part("parameters", parameters.title, site.listing(parameters)),
        site.Part("settings", settings.title, site.folded("All settings", site.listing(settings))),
        site.Part("cost", cost.title, site.cost(cost)),
    ]
    files = {f"{one.key}.md": tables.comparison_markdown(one) for one in comparisons}
    files |= {f"{one.key}.csv": tables.comparison_csv(one) for one in comparisons}
    files |= {f"{one.key}.md": tables.listing_markdown(one) for one in listings}
    files |= {f"{one.key}.csv": tables.listing_csv(one) for one in listings}
    return Report(
        metrics=metrics(comparisons, run, statistics),
        tables=files,
        figures={f"{name}.svg": svg for name, (svg, _) in drawn.items()},
        page=site.page(f"selfadapt: {run.base['base']}", LEAD, facts(run), parts),
        claims=claims,
    )


LEAD = (
    "One frozen base model, adapted by singular-value fine-tuning with test-time mixing (Transformer²), by LoRA, and "
    "by edits of hidden states (LoReFT, CS-ReFT); every method answers the same held-out prompts."
)
SAMPLES = "The first prompts of each test split, not picked, with what every method answered."


def comparison(key: str, run: Run, statistics: Statistics) -> Comparison:
    frame = statistics.comparisons[key]
    domains = {task: run.settings.domains.get(task, "") for task in frame["task"] if task in run.examples}
    published, benchmarks = tables.published_of(key, domains, run.published)
    cells = {cell.row: cell for cell in reversed(run.settings.cells.values()) if key in cell.table}
    sources = {row: run.provenance.get(cell.adapter, {}) for row, cell in cells.items()}
    trained = {
        row: tables.Trained(one["parameters"], one.get("parameters_without_router"), run.base["base_parameters"])
        for row, one in sources.items()
        if "parameters" in one
    }
    return Comparison(
        key=key,
        title=tables.TITLES.get(key, key.replace("_", " ")),
        frame=frame,
        domains=domains,
        baselines=statistics.baselines,
        trained=trained,
        published=published,
        benchmarks=benchmarks,
        claim=tables.claim_of(key, frame, statistics.rivals.get(key, frame), domains),
    )


def metrics(comparisons: list[Comparison], run: Run, statistics: Statistics) -> dict[str, Any]:
    """Numbers of the run alone: nothing that differs between two equal runs."""
    found: dict[str, Any] = {one.key: tables.comparison_metrics(one) for one in comparisons}
    found["baselines"] = {task: tables.rounded(one) for task, one in statistics.baselines.items() if one}
    if len(run.decisions):
        found["dispatch"] = tables.dispatch_metrics(statistics.dispatch)
    keys = ("parameters", "parameters_without_router")
    found["parameters"] = {
        name: {key: one[key] for key in keys if one.get(key) is not None} for name, one in run.provenance.items()
    }
    return found


def drawings(run: Run, statistics: Statistics) -> dict[str, tuple[str, str]]:
    """Figure name to its SVG and its caption."""
    drawn = {}
    for key, frame in statistics.comparisons.items():
        caption = "Accuracy on the test split with its 95 % interval; dashed: the base model."
        drawn[f"{key}-accuracy"] = (figures.accuracies(frame, tables.ROWS, f"{key}-accuracy"), caption)
    base = base_accuracies(statistics)
    rewarded = {name: curve for name, curve in run.curves.items() if curve["objective"].iloc[0] == "reinforce"}
    classifier = {name: curve for name, curve in rewarded.items() if not name.startswith("svf-")}
    experts = {name.removeprefix("svf-"): curve for name, curve in rewarded.items() if name not in classifier}
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
        drawn["figure4"] = (figures.learning_curves(experts, lines, "figure4"), caption)
    if classifier:
        caption = "The classification expert, trained the same way to name a prompt's domain."
        drawn["figure4-classifier"] = (figures.learning_curves(classifier, {}, "figure4-classifier"), caption)
    supervised = {name: curve for name, curve in run.curves.items() if name not in rewarded}
    if supervised:
        caption = "Methods trained by next-token prediction. Dot: the checkpoint chosen, by validation."
        drawn["losses"] = (figures.loss_curves(supervised, "losses"), caption)
    if len(run.decisions):
        caption = (
            "Figure 6. Test prompts by their true domain (rows) and the domain named (columns); 'others' leaves the "
            "base model as it is."
        )
        labels = tables.DISPATCHERS
        svg = figures.confusions(run.decisions, list(run.settings.trained), labels, "figure6")
        drawn["figure6"] = (svg, caption)
    if run.mixtures:
        mixtures = dict(sorted(run.mixtures.items(), key=lambda one: place.get(one[1]["task"], len(place))))
        caption = "Figure 7. What the search found on a few held-out prompts of each unseen task."
        drawn["figure7"] = (figures.alphas(mixtures, "figure7"), caption)
    if run.gates is not None:
        caption = "CS-ReFT: the router's mean gate on validation prompts; 0 is closed, 1 is open."
        drawn["gates"] = (figures.gates(run.gates, "gates"), caption)
    return drawn


def base_accuracies(statistics: Statistics) -> dict[str, float]:
    """The base model's accuracy on every task it was measured on."""
    frames = [frame[frame["row"] == "base"] for frame in statistics.comparisons.values()]
    return {task: mean for frame in frames for task, mean in zip(frame["task"], frame["mean"], strict=True)}


def shown(drawn: Mapping[str, tuple[str, str]], name: str) -> str:
    return site.figure(*drawn[name]) if name in drawn else ""


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


def samples(run: Run) -> list[site.Sample]:
    """The first prompts of each task with the answer of each method (a cell in two tables counts once)."""
    scores = {(line["cell"], line["id"]): line for line in run.scores.to_dict("records")}
    chosen = []
    for task in [task for task in run.settings.domains if task in run.examples]:
        cells = {name: cell for name, cell in run.settings.cells.items() if cell.task == task}
        for example in run.examples[task][: run.settings.report.samples]:
            answers = []
            for name, cell in cells.items():
                score = scores[name, example.id]
                same = sum(one.row == cell.row for one in cells.values())
                answers.append(
                    site.Answer(
                        by=tables.row_name(cell.row) + (f" ({name})" if same > 1 else ""),
                        text=run.completions[name][example.id].text,
                        read=score["answer"] if score["parsed"] else None,
                        right=bool(score["correct"]),
                    )
                )
            prompt = example.messages[-1]["content"]
            chosen.append(site.Sample(task=task, prompt=prompt, target=example.target, answers=tuple(answers)))
    return chosen
