"""Which figures a run has, each with its caption."""

from collections.abc import Iterator

import pandas as pd

from pipeline.reporting import papers
from pipeline.reporting.figures import adapting, draw, gates, learning, spectra
from pipeline.reporting.measured import Statistics
from pipeline.reporting.planned import BASE, SCAN, Training
from pipeline.reporting.read import Run
from pipeline.reporting.site import Figure
from pipeline.reporting.tables.accuracy import labels_of
from pipeline.reporting.tables.learning import SIGNALS, measured, rewarded
from pipeline.reporting.tables.variants import is_variant, origin


def figures_of(run: Run, statistics: Statistics) -> dict[str, Figure]:
    """The figures by name."""
    drawn = [
        *accuracies(run, statistics),
        *learnt_from_rewards(run),
        *signals(run),
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


def learnt_from_rewards(run: Run) -> Iterator[Figure]:
    """The learning curves of experts, of the classification expert, and of other methods."""
    curves = rewarded(run.curves)
    trained = trainings(run)
    places = {task: place for place, task in enumerate(run.settings.domains)}
    own = [name for name in curves if name in trained and trained[name] in run.plan.train_svf.values()]
    own = [name for name in own if name not in varied(run)]
    own.sort(key=lambda name: places.get(trained[name].task, len(places)))
    if experts := {name.removeprefix("svf-"): name for name in own}:
        caption = (
            "Figure 4. SVF experts learning by REINFORCE: above, the mean reward of the answers sampled in training; "
            "below, accuracy on validation prompts. Dashed: the base model on the same validation prompts (step 0). "
            "Dot: the checkpoint chosen, by validation. Pale: other coefficients λ of the divergence from the base "
            "model."
        )
        titled = {title: curves[name] for title, name in experts.items()}
        yield Figure("figure4", learning.learning_curves(titled, "figure4"), caption)
    if classifiers := {name: curve for name, curve in curves.items() if name in run.plan.fit_classifier}:
        caption = "The classification expert, trained the same way to name a prompt's domain."
        svg = learning.learning_curves(classifiers, "figure4-classifier")
        yield Figure("figure4-classifier", svg, caption)
    if others := [name for name in curves if name in trained and trained[name].method != "svf"]:
        caption = (
            "Figure 9. Other methods trained by REINFORCE, as the experts are: above, the mean reward of the sampled "
            "answers; below, accuracy on validation prompts. Dashed: the base model on the same validation prompts "
            "(step 0). Of a sweep, each rate has a panel; the dot is in that of the rate chosen. In the paper, LoRA "
            "trained so collapses."
        )
        titled = {title: part for name in others for title, part in by_rate(name, run).items()}
        yield Figure("figure9", learning.learning_curves(titled, "figure9"), caption)


def by_rate(name: str, run: Run) -> dict[str, pd.DataFrame]:
    """The curve of a training by its title; of a sweep, one for each pair of a rate and a clip that was tried."""
    if name not in run.sweeps:
        return {name: run.curves[name]}
    sweep = run.sweeps[name]
    several = sweep["clip"].nunique() > 1
    return {
        f"{name}, rate {rate:g}" + (f", clip {clip:g}" if several else ""): part.reset_index(drop=True)
        for (rate, clip), part in sweep.groupby(["learning_rate", "clip"])
    }


def signals(run: Run) -> Iterator[Figure]:
    """What the steps of the experts' trainings measured of themselves, where they did."""
    trained, left_out = trainings(run), varied(run)
    places = {task: place for place, task in enumerate(run.settings.domains)}
    names = [name for name in rewarded(run.curves) if name in trained and name not in left_out]
    names.sort(key=lambda name: places.get(trained[name].task, len(places)))
    found = {name: measured(run.curves[name]) for name in names}
    if found := {name: values for name, values in found.items() if values}:
        caption = (
            "What each step measured: the share of its prompts whose sampled answers were rewarded differently, the "
            "cosine between the gradients of two halves of its batch, the policy's entropy, its divergence from the "
            "base model, and the largest change of a singular value's scale. The table of what there was to learn from "
            "has the sum of the learning rates beside."
        )
        yield Figure("signal", learning.signals(found, SIGNALS, "signal"), caption)


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
    scans = {name: mixture for name, mixture in run.mixtures.items() if mixture["strategy"] == SCAN}
    searched = {name: mixture for name, mixture in run.mixtures.items() if name not in scans}
    if any(mixture["trace"] for mixture in searched.values()):
        caption = (
            "Searches for α: the best accuracy so far on the few prompts, by generation, a line for each "
            "configuration; thin: the mean of the generation's elites. A search whose line does not rise after its "
            "first generation found nothing that drawing at random had not."
        )
        yield Figure("searches", adapting.searches(searched, "searches"), caption)
    if scans:
        caption = (
            "Scans over α: the accuracy of every mixture of a grid on the few prompts, in descending order. Where the "
            "line is level, no search for α can gain."
        )
        yield Figure("scans", adapting.scans(scans, "scans"), caption)


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
