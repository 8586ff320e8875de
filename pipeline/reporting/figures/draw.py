"""The report's figures, as SVG texts that are the same bytes each time.

Text and axes are drawn in one stand-in colour that becomes ``currentColor``, and each file carries its own light and
dark colour, so a figure is readable on either ground, alone or inside the page.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK = "#010203"  # stands for the text colour until the figure is written
COLOURS = ("#3b82c4", "#d9792b", "#2a9d74", "#a06cc8", "#c2557a", "#8a8f2a")  # readable on white and on black
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "savefig.transparent": True,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")},
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
}


def svg(figure: Figure, name: str, label: str) -> str:
    """A figure as SVG. name: unique in the page, it keeps ids apart. label: what a screen reader says."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*">', "<g>", drawn)  # names of groups repeat from figure to figure
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", drawn)  # so do ids of equal markers
    drawn = re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE).replace(INK, "currentColor")
    label = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    style = (
        "<style>svg.figure{color:#24292f;font-family:system-ui,sans-serif}"
        "@media(prefers-color-scheme:dark){svg.figure{color:#dbe2ea}}</style>"
    )
    drawn = drawn.replace("<svg ", f'<svg class="figure" role="img" aria-label="{label}" ', 1)
    return re.sub(r"(<svg [^>]*>)", rf"\1{style}", drawn, count=1)


def grid(columns: int, rows: int, *, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of ``rows`` by ``columns`` axes, each ``width`` by ``height`` inches. Axes as (rows, columns)."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False))


def panels(count: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` axes in rows of ``columns``, each ``width`` by ``height`` inches."""
    figure, axes = grid(columns, -(-count // columns), width=width, height=height)
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def accuracies(frame: pd.DataFrame, labels: Mapping[str, str], name: str) -> str:
    """Every row's accuracy with its 95 % interval, one panel a task; the base model's as a dashed line."""
    tasks = list(dict.fromkeys(frame["task"]))
    rows = list(dict.fromkeys(frame["row"]))
    longest = max(len(labels.get(row, row)) for row in rows)
    width = max(2.7, 1.75 + 0.08 * longest / len(tasks))  # inches: the labels stand beside the first panel only
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(tasks), 1, width=width, height=0.75 + 0.34 * len(rows))
        for place, (axis, task) in enumerate(zip(axes[0], tasks, strict=True)):
            part = frame[frame["task"] == task].set_index("row")
            for height, row in enumerate(rows):
                if row in part.index:
                    one = part.loc[row]
                    colour = INK if row == "base" else COLOURS[(height - 1) % len(COLOURS)]
                    axis.plot([one["low"], one["high"]], [height, height], color=colour, linewidth=2)
                    axis.plot([one["mean"]], [height], "o", color=colour, markersize=6)
            if "base" in part.index:
                axis.axvline(part.loc["base", "mean"], color=INK, linestyle="--", linewidth=0.8, alpha=0.6)
            axis.set_yticks(
                range(len(rows)), [labels.get(row, row) for row in rows] if place == 0 else [""] * len(rows)
            )
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.set_title(task.replace("_", " "))
            percent_axis(axis, "x")
            axis.set_xlabel("accuracy")
    return svg(figure, name, f"Accuracy and 95 % interval of {', '.join(rows)} on {', '.join(tasks)}")


def percent_axis(axis: Axes, which: Literal["x", "y"]) -> None:
    one = axis.xaxis if which == "x" else axis.yaxis
    one.set_major_locator(MaxNLocator(4))
    one.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(visible=True, axis=which, alpha=0.15, linewidth=0.8)


def learning_curves(curves: Mapping[str, pd.DataFrame], base: Mapping[str, float], name: str) -> str:
    """Figure 4: sampled reward in training (above) and validation accuracy (below), one column a curve.

    base: curve to the base model's accuracy on the test split, drawn dashed. The dot is the checkpoint chosen; runs
    with another coefficient λ of the divergence from the base model, not chosen, are pale.
    """
    width = max(3.0, 0.75 + 0.1 * max(len(title) + 11 for title in curves))  # inches: titles stand above one panel each
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(curves), 2, width=width, height=2.0)
        for place, (title, curve) in enumerate(curves.items()):
            above, below = axes[:, place]
            kept = curve[curve["kl_coefficient"] == curve.loc[curve["chosen"].astype(bool), "kl_coefficient"].iloc[0]]
            for coefficient, other in curve.groupby("kl_coefficient"):
                if coefficient != kept["kl_coefficient"].iloc[0]:
                    above.plot(other["step"], other["train"], color=COLOURS[0], linewidth=1, alpha=0.35)
                    measured = other[other["validation"].notna()]
                    below.plot(measured["step"], measured["validation"], color=COLOURS[2], linewidth=1, alpha=0.35)
            above.plot(kept["step"], kept["train"], color=COLOURS[0], linewidth=1.6)
            above.set_title(f"{title} (λ = {kept['kl_coefficient'].iloc[0]:g})")
            above.grid(visible=True, axis="y", alpha=0.15)
            draw_validation(below, kept, COLOURS[2])
            if title in base:
                below.axhline(base[title], color=INK, linestyle="--", linewidth=1, alpha=0.7, label="base model, test")
            percent_axis(below, "y")
            for axis in (above, below):
                axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            above.set_xlim(below.get_xlim())
            below.set_xlabel("training step")
            if place == 0:
                above.set_ylabel("mean reward\nof samples, −1 to 1")
                below.set_ylabel("validation\naccuracy")
                below.legend(fontsize=8, loc="best")
    return svg(figure, name, f"Learning curves of {', '.join(curves)}")


def loss_curves(curves: Mapping[str, pd.DataFrame], name: str) -> str:
    """Next-token prediction: loss of training and validation, one panel a curve; the dot is the checkpoint chosen."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(curves), min(4, len(curves)), width=2.7, height=2.1)
        for place, (axis, (title, curve)) in enumerate(zip(axes, curves.items(), strict=True)):
            axis.plot(curve["step"], curve["train"], color=COLOURS[0], linewidth=1.4, label="training")
            draw_validation(axis, curve, COLOURS[1])
            axis.set_title(title)
            axis.set_xlabel("training step")
            axis.grid(visible=True, axis="y", alpha=0.15)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if place % 4 == 0:
                axis.set_ylabel("loss, nats a token")
            if place == 0:
                axis.legend(fontsize=8, loc="best")
    return svg(figure, name, f"Losses of {', '.join(curves)}")


def draw_validation(axis: Axes, curve: pd.DataFrame, colour: str) -> None:
    measured = curve[curve["validation"].notna()]
    axis.plot(measured["step"], measured["validation"], color=colour, linewidth=1.6, label="validation")
    chosen = measured[measured["chosen"].astype(bool)]
    axis.plot(chosen["step"], chosen["validation"], "o", color=colour, markersize=7, label="chosen")


def heat(axis: Axes, values: np.ndarray, texts: Sequence[Sequence[str]], colour: str) -> None:
    """Numbers from 0 to 1 as fields of one colour, stronger where larger, each with its text."""
    for (row, column), value in np.ndenumerate(values):
        strength = 0.0 if np.isnan(value) else float(np.clip(value, 0, 1))
        field = matplotlib.patches.Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.06 + 0.7 * strength)
        axis.add_patch(field)
        axis.text(column + 0.5, row + 0.5, texts[row][column], ha="center", va="center", fontsize=9.5)
    field_axes(axis, *values.shape)


def field_axes(axis: Axes, rows: int, columns: int) -> None:
    """Axes of fields of one by one, the first row at the top."""
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def confusions(decisions: pd.DataFrame, domains: Sequence[str], labels: Mapping[str, str], name: str) -> str:
    """Figure 6: the true domain (rows) against the domain named (columns), as shares of a row, with counts.

    One column of panels a dispatcher; the trained tasks' test prompts above, the unseen ones' below.
    """
    dispatchers = list(dict.fromkeys(decisions["row"]))
    groups = [group for group in ("trained", "unseen") if (decisions["task"] == group).any()]
    named = [*domains, *sorted(set(decisions["predicted"]) - set(domains) - {"others"}), "others"]
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(dispatchers), len(groups), width=3.9, height=2.3)
        for row, group in enumerate(groups):
            for column, dispatcher in enumerate(dispatchers):
                axis = axes[row, column]
                part = decisions[(decisions["row"] == dispatcher) & (decisions["task"] == group)]
                counts = np.array(
                    [
                        [((part["domain"] == true) & (part["predicted"] == one)).sum() for one in named]
                        for true in domains
                    ]
                )
                shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
                heat(axis, shares, [[str(count) for count in line] for line in counts], COLOURS[0])
                axis.set_xticks(np.arange(len(named)) + 0.5, named)
                axis.set_yticks(np.arange(len(domains)) + 0.5, list(domains) if column == 0 else [""] * len(domains))
                right = 100 * part["correct"].mean() if len(part) else float("nan")
                axis.set_title(
                    f"{labels.get(dispatcher, dispatcher)}\n{group} tasks: {right:.1f} % right", fontsize=9.5
                )
                if row == len(groups) - 1:
                    axis.set_xlabel("domain named")
                if column == 0:
                    axis.set_ylabel("true domain")
    return svg(figure, name, "Confusion matrices of the dispatchers")


def alphas(mixtures: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Figure 7: the coefficients found for each unseen task: bars, or lines over the layers where each has its own."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(mixtures), 1, width=3.2, height=2.5)
        for place, (axis, mixture) in enumerate(zip(axes[0], mixtures.values(), strict=True)):
            alpha = np.asarray(mixture["alpha"], dtype=float)
            experts = [expert.removeprefix("svf-") for expert in mixture["experts"]]
            if len(alpha) == 1:
                axis.bar(experts, alpha[0], color=COLOURS[: len(experts)], width=0.6)
                for column, value in enumerate(alpha[0]):
                    above = "bottom" if value >= 0 else "top"
                    axis.text(column, value, f"{value:.2f}", ha="center", va=above, fontsize=9)
                axis.margins(y=0.15)
                axis.tick_params(axis="x", length=0)
                axis.set_xlabel("expert")
            else:
                for column, expert in enumerate(experts):
                    label = f"{expert}, mean {alpha[:, column].mean():.2f}"
                    axis.plot(alpha[:, column], color=COLOURS[column % len(COLOURS)], linewidth=1.5, label=label)
                axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.32))
                axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
                axis.set_xlabel("decoder layer")
            axis.axhline(0, color=INK, linewidth=0.8)
            sums = "Σα = 1" if mixture["normalised"] else "α free"
            axis.set_title(f"{mixture['task']}\n{'per layer' if len(alpha) > 1 else 'one α'}, {sums}", fontsize=9.5)
            if place == 0:
                axis.set_ylabel("coefficient α")
    return svg(figure, name, f"Coefficients of the experts for {', '.join(one['task'] for one in mixtures.values())}")


def gates(means: pd.DataFrame, name: str) -> str:
    """The router's mean gate (0 closed, 1 open) on validation prompts: skills (rows) by subspaces (columns)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, width=1.8 + 0.95 * means.shape[1], height=0.9 + 0.5 * len(means))
        axis = axes[0, 0]
        draw_gates(axis, means)
        axis.set_xlabel("subspace")
        axis.set_ylabel("prompts of")
    return svg(figure, name, f"Mean gate of each subspace for the skills {', '.join(means.index)}")


def draw_gates(axis: Axes, means: pd.DataFrame) -> None:
    values = means.to_numpy()
    heat(axis, values, [[f"{value:.2f}" for value in row] for row in values], COLOURS[2])
    axis.set_xticks(np.arange(means.shape[1]) + 0.5, [str(column + 1) for column in range(means.shape[1])])
    axis.set_yticks(np.arange(len(means)) + 0.5, list(means.index))


def searches(mixtures: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """The best accuracy so far on the few prompts against the prompts run, one panel a task, one line a search."""
    tasks = [mixture["task"] for mixture in mixtures.values()]
    named = max(tasks.count(task) for task in tasks)  # below the axes
    tasks = list(dict.fromkeys(tasks))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(tasks), 1, width=3.6, height=2.6 + 0.2 * named)
        for place, (axis, task) in enumerate(zip(axes[0], tasks, strict=True)):
            of_task = {key: one for key, one in mixtures.items() if one["task"] == task and one["trace"]}
            for number, (key, mixture) in enumerate(of_task.items()):
                trace = mixture["trace"]
                best = np.maximum.accumulate([row["best_accuracy"] for row in trace])
                colour = COLOURS[number % len(COLOURS)]
                # Lines of equal accuracy would hide each other: each has its own dashes and mark.
                style, mark = ("-", "--", "-.", ":")[number % 4], "osD^vP"[number % 6]
                axis.step([row["prompts"] for row in trace], best, where="post", color=colour, linestyle=style)
                axis.plot(trace[-1]["prompts"], best[-1], mark, color=colour, label=key.removesuffix(f"-{task}"))
            axis.set_title(task)
            axis.set_xlabel("prompts run")
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            percent_axis(axis, "y")
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22))
            if place == 0:
                axis.set_ylabel("best accuracy so far")
    return svg(figure, name, f"Best accuracy on the few prompts of {', '.join(tasks)} against prompts run")


def share_panels(kinds: Sequence[str], what: str) -> tuple[Figure, dict[str, Axes]]:
    """Axes of the share of ``what`` against the top part of the rank, one panel a kind of matrix."""
    figure, axes = panels(len(kinds), 4, width=2.4, height=2.2)
    for place, (axis, kind) in enumerate(zip(axes, kinds, strict=True)):
        axis.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=0.8, alpha=0.6)  # all components weigh the same
        axis.set_title(kind)
        percent_axis(axis, "y")
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("top part of the rank")
        if place % 4 == 0:
            axis.set_ylabel(f"share of {what}")
    return figure, dict(zip(kinds, axes, strict=True))


def spectra(frame: pd.DataFrame, name: str) -> str:
    """Figures 10 and 11: the share of Σσ in the top components, one panel a kind of matrix, one line a layer."""
    sigma = frame[frame["of"] == "sigma"]
    kinds, depth = list(dict.fromkeys(sigma["module"])), max(int(sigma["layer"].max()), 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = share_panels(kinds, "Σσ")
        for kind, axis in axes.items():
            for layer, line in sigma[sigma["module"] == kind].groupby("layer"):
                late = int(str(layer)) / depth
                label = {0: "first layer", depth: "last layer"}.get(int(str(layer)))
                colour, alpha = COLOURS[0] if late < 0.5 else COLOURS[1], 0.25 + 0.75 * abs(2 * late - 1)
                top, share = [0, *line["top"]], [0, *line["share"]]
                axis.plot(top, share, color=colour, alpha=alpha, linewidth=1, label=label)
        axes[kinds[0]].legend(fontsize=8, loc="lower right")
    return svg(figure, name, f"Share of the singular values' sum in the top components of {', '.join(kinds)}")


def changes(frame: pd.DataFrame, name: str) -> str:
    """The share of every expert's Σ|z − 1| in the top components, and of Σσ in grey; means over layers."""
    kinds, experts = list(dict.fromkeys(frame["module"])), list(dict.fromkeys(frame["of"]))
    means = frame.groupby(["of", "module", "top"], sort=False)["share"].mean().reset_index()
    with matplotlib.rc_context(STYLE):
        figure, axes = share_panels(kinds, "Σ|z − 1|")
        for kind, axis in axes.items():
            for number, one in enumerate(experts):
                line = means[(means["of"] == one) & (means["module"] == kind)]
                colour = "#8a8f98" if one == "sigma" else COLOURS[(number - 1) % len(COLOURS)]
                label = "σ" if one == "sigma" else one.removeprefix("svf-")
                axis.plot([0, *line["top"]], [0, *line["share"]], color=colour, linewidth=1.4, label=label)
        axes[kinds[0]].legend(fontsize=8, loc="lower right")
    return svg(figure, name, f"Share of the experts' changes in the top components of {', '.join(kinds)}")
