"""Which figures a run has, each with its caption."""

from pipeline.reporting import papers as names
from pipeline.reporting.figures import draw as figures
from pipeline.reporting.measured import Statistics
from pipeline.reporting.read import Run
from pipeline.reporting.site import Figure
from pipeline.reporting.tables import learning, variants
from pipeline.reporting.tables.accuracy import labels_of


def drawings(run: Run, statistics: Statistics) -> dict[str, Figure]:
    """The figures by name."""
    drawn: dict[str, Figure] = {}

    def add(name: str, svg: str, caption: str) -> None:
        drawn[name] = Figure(name, svg, caption)

    for key, frame in statistics.comparisons.items():
        caption = "Accuracy on the test split with its 95 % interval; dashed: the base model."
        name = f"{key}-accuracy"
        add(name, figures.accuracies(frame, {**names.ROWS, **labels_of(key, run)}, name), caption)
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
        labels = names.DISPATCHERS
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
