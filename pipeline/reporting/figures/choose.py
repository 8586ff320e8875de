"""Which figures a run has, each with its caption."""

from collections.abc import Iterator, Mapping

import pandas as pd

from pipeline.reporting import papers
from pipeline.reporting.figures import adapting, draw, gates, learning, spectra
from pipeline.reporting.measured import Statistics
from pipeline.reporting.planned import BASE, Training
from pipeline.reporting.read import Run
from pipeline.reporting.site import Figure
from pipeline.reporting.tables.accuracy import labels_of
from pipeline.reporting.tables.learning import rewarded
from pipeline.reporting.tables.variants import is_variant, origin


def figures_of(run: Run, statistics: Statistics) -> dict[str, Figure]:
    """The figures by name."""
    drawn = [
        *accuracies(run, statistics),
        *learnt_from_rewards(run, statistics),
        *supervised(run),
        *dispatched(run),
        *mixed(run),
        *singular(run),
        *opened(run),
    ]
    return {figure.name: figure for figure in drawn}


def accuracies(run: Run, statistics: Statistics) -> Iterator[Figure]:
    """One for each table of accuracies."""
    caption = "Accuracy on the test split with its 95 % interval; dashed: the base model."
    for key, frame in statistics.comparisons.items():
        name = f"{key}-accuracy"
        yield Figure(name, draw.accuracies(frame, {**papers.ROWS, **labels_of(key, run)}, name), caption)


def learnt_from_rewards(run: Run, statistics: Statistics) -> Iterator[Figure]:
    """The learning curves of experts, of the classification expert, and of other methods."""
    base, curves = base_accuracies(run, statistics), rewarded(run.curves)
    trained = trainings(run)

    def lines(names: Mapping[str, str]) -> dict[str, float]:
        """The base model's accuracy beside each curve. names: of the curve, by its title."""
        tasks = {title: trained[name].task for title, name in names.items()}
        return {title: base[task] for title, task in tasks.items() if task in base}

    places = {task: place for place, task in enumerate(run.settings.domains)}
    own = [name for name in curves if name in trained and trained[name] in run.plan.train_svf.values()]
    own = [name for name in own if name not in varied(run)]
    own.sort(key=lambda name: places.get(trained[name].task, len(places)))
    if experts := {name.removeprefix("svf-"): name for name in own}:
        caption = (
            "Figure 4. SVF experts learning by REINFORCE: above, the mean reward of the answers sampled in training; "
            "below, accuracy on validation prompts. Dashed: the base model on the test split. Dot: the checkpoint "
            "chosen, by validation. Pale: other coefficients λ of the divergence from the base model."
        )
        titled = {title: curves[name] for title, name in experts.items()}
        yield Figure("figure4", learning.learning_curves(titled, lines(experts), "figure4"), caption)
    if classifiers := {name: curve for name, curve in curves.items() if name in run.plan.fit_classifier}:
        caption = "The classification expert, trained the same way to name a prompt's domain."
        svg = learning.learning_curves(classifiers, {}, "figure4-classifier")
        yield Figure("figure4-classifier", svg, caption)
    if others := {name: name for name in curves if name in trained and trained[name].method != "svf"}:
        caption = (
            "Figure 9. Other methods trained by REINFORCE, as the experts are: above, the mean reward of the sampled "
            "answers; below, accuracy on validation prompts. Dashed: the base model on the test split. In the paper, "
            "LoRA trained so collapses."
        )
        titled = {name: curves[name] for name in others}
        yield Figure("figure9", learning.learning_curves(titled, lines(others), "figure9"), caption)


def supervised(run: Run) -> Iterator[Figure]:
    """The losses of what was trained on reference answers, but for variants."""
    from_rewards = rewarded(run.curves)
    left_out = {*from_rewards, *varied(run)}
    if curves := {name: curve for name, curve in run.curves.items() if name not in left_out}:
        caption = "Methods trained by next-token prediction. Dot: the checkpoint chosen, by validation."
        yield Figure("losses", learning.loss_curves(curves, "losses"), caption)


def dispatched(run: Run) -> Iterator[Figure]:
    """What the first passes name."""
    if len(run.decisions):
        caption = (
            "Figure 6. Test prompts by their true domain (rows) and the domain named (columns); 'others' leaves the "
            "base model as it is."
        )
        svg = adapting.confusions(run.decisions, run.settings.skills, papers.DISPATCHERS, "figure6")
        yield Figure("figure6", svg, caption)


def mixed(run: Run) -> Iterator[Figure]:
    """What the searches for α find, and how fast."""
    places = {task: place for place, task in enumerate(run.settings.domains)}
    usual = {name: mixture for name, mixture in run.mixtures.items() if not is_variant(mixture, run)}
    if usual:
        usual = dict(sorted(usual.items(), key=lambda named: places.get(named[1]["task"], len(places))))
        caption = "Figure 7. What the search found on a few held-out prompts of each unseen task."
        yield Figure("figure7", adapting.alphas(usual, "figure7"), caption)
    if len(usual) < len(run.mixtures):
        caption = (
            "Searches for α: the best accuracy so far on the few prompts, against the prompts run for it. A searcher "
            "is better where its line is higher, further to the left."
        )
        yield Figure("searches", adapting.searches(run.mixtures, "searches"), caption)


def singular(run: Run) -> Iterator[Figure]:
    """What the top singular components hold, of each base model and of the experts on the first of them."""
    for number, (name, frame) in enumerate(run.spectra.items(), start=10):
        of = run.base["base"] if name == BASE else origin(name, run)
        caption = (
            f"Figure {number}. The share of Σσ that the top singular components hold, by kind of matrix and "
            f"layer, of {of}. On the dashed line all components weigh the same."
        )
        yield Figure(f"figure{number}", spectra.spectra(frame, f"figure{number}"), caption)
    if run.spectra:
        caption = (
            "What share of an expert's change, Σ |z − 1|, lies in the top components, the mean over layers; grey: of "
            "Σσ. On the dashed line all components were changed alike."
        )
        yield Figure("changes", spectra.changes(next(iter(run.spectra.values())), "changes"), caption)


def opened(run: Run) -> Iterator[Figure]:
    """Which subspaces a router opens."""
    if run.gates is not None:
        caption = "CS-ReFT: the router's mean gate on validation prompts; 0 is closed, 1 is open."
        yield Figure("gates", gates.gates(run.gates, "gates"), caption)


def trainings(run: Run) -> dict[str, Training]:
    """What trained the adapters of one task, by the names of their curves."""
    return {item.name: item for _, item in run.plan.trainings}


def varied(run: Run) -> set[str]:
    """The curves of adapters whose row has a recipe of its own: Table 4 shows what they came to."""
    return {name for name, item in trainings(run).items() if run.settings.own_recipe(item.row)}


def base_accuracies(run: Run, statistics: Statistics) -> dict[str, float]:
    """The base model's accuracy on every task it was measured on, from tables that are about no other base model."""
    others = {table for cell in run.plan.cells.values() if cell.base != BASE for table in cell.tables}
    frames: list[pd.DataFrame] = [
        frame[frame["row"] == "base"] for key, frame in statistics.comparisons.items() if key not in others
    ]
    return {task: mean for frame in frames for task, mean in zip(frame["task"], frame["mean"], strict=True)}
