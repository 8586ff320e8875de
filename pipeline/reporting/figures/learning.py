"""The figures of what was trained: learning curves and losses."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, grid, panels, percent_axis, svg

WIDE = 6  # panels side by side


def learning_curves(curves: Mapping[str, pd.DataFrame], name: str) -> str:
    """Figure 4: sampled reward in training (above) and validation accuracy (below), one column a curve.

    Dashed: the accuracy on the same validation prompts before training (step 0). The dot is the checkpoint chosen; a
    curve without one was not chosen at all. Runs with another coefficient λ of the divergence from the base model,
    which were not chosen, are pale.
    """
    width = max(3.0, 0.75 + 0.1 * max(len(title) + 11 for title in curves))  # inches: titles stand above one panel each
    columns = min(WIDE, len(curves))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(columns, 2 * -(-len(curves) // columns), width=width, height=2.0)
        for place, (title, curve) in enumerate(curves.items()):
            row, column = divmod(place, columns)
            above, below = axes[2 * row, column], axes[2 * row + 1, column]
            kept = kept_coefficient(curve)
            coefficient = kept["kl_coefficient"].iloc[0]
            draw_others(above, below, curve[curve["kl_coefficient"] != coefficient])
            above.plot(kept["step"], kept["train"], color=COLOURS[0], linewidth=1.6)
            above.set_title(f"{title} (λ = {coefficient:g})")
            above.grid(visible=True, axis="y", alpha=0.15)
            draw_validation(below, kept, COLOURS[2])
            draw_start(below, kept)
            percent_axis(below, "y")
            for axis in (above, below):
                axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            above.set_xlim(below.get_xlim())
            below.set_xlabel("training step")
            if column == 0:
                above.set_ylabel("mean reward\nof samples, −1 to 1")
                below.set_ylabel("validation\naccuracy")
            if place == 0:
                below.legend(fontsize=8, loc="best")
        remove_rest(axes, len(curves), columns)
    return svg(figure, name, f"Learning curves of {', '.join(curves)}")


def kept_coefficient(curve: pd.DataFrame) -> pd.DataFrame:
    """The part of a curve under the λ that was chosen; where none was, under that of the best validation."""
    chosen = curve[curve["chosen"].astype(bool)]
    best = chosen.iloc[0] if len(chosen) else curve.iloc[int(curve["validation"].astype(float).argmax())]
    return curve[curve["kl_coefficient"] == best["kl_coefficient"]]


def draw_others(above: Axes, below: Axes, others: pd.DataFrame) -> None:
    """The runs with other coefficients λ, pale."""
    for _, other in others.groupby("kl_coefficient"):
        above.plot(other["step"], other["train"], color=COLOURS[0], linewidth=1, alpha=0.35)
        measured = other[other["validation"].notna()]
        below.plot(measured["step"], measured["validation"], color=COLOURS[2], linewidth=1, alpha=0.35)


def draw_start(axis: Axes, curve: pd.DataFrame) -> None:
    """The validation number before training, across the panel."""
    start = curve.loc[curve["step"] == 0, "validation"].dropna()
    if len(start):
        axis.axhline(
            float(start.iloc[0]), color=INK, linestyle="--", linewidth=1, alpha=0.7, label="before training, step 0"
        )


def remove_rest(axes: np.ndarray, count: int, columns: int) -> None:
    """Remove the pairs of axes that no curve fills."""
    for place in range(count, axes.shape[0] // 2 * columns):
        row, column = divmod(place, columns)
        axes[2 * row, column].remove()
        axes[2 * row + 1, column].remove()


def signals(curves: Mapping[str, Mapping[str, pd.Series]], words: Mapping[str, str], name: str) -> str:
    """What the steps of a training measured: one column a training, one row a measure; a panel is empty without it.

    curves: training to measure to its values by step. words: measure to what it is called.
    """
    shown = [measure for measure in words if any(measure in found for found in curves.values())]
    width = max(2.7, 0.75 + 0.1 * max(len(title) for title in curves))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(curves), len(shown), width=width, height=1.7)
        for column, (title, found) in enumerate(curves.items()):
            for row, measure in enumerate(shown):
                axis = axes[row, column]
                draw_signal(axis, found.get(measure), COLOURS[row % len(COLOURS)])
                if row == 0:
                    axis.set_title(title)
                if column == 0:
                    axis.set_ylabel(folded(words[measure]))
                if row == len(shown) - 1:
                    axis.set_xlabel("training step")
    return svg(figure, name, f"{', '.join(words[measure] for measure in shown)}, by step, of {', '.join(curves)}")


def draw_signal(axis: Axes, values: pd.Series | None, colour: str) -> None:
    """One measure by step; nothing where the training has not measured it."""
    if values is None:
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        return
    axis.plot(values.index, values.to_numpy(), color=colour, linewidth=1.4, marker="." if len(values) < 20 else None)
    axis.axhline(0, color=INK, linewidth=0.6, alpha=0.4)
    axis.grid(visible=True, axis="y", alpha=0.15)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def folded(words: str) -> str:
    """Words in two lines of about equal length."""
    parts = words.split(" ")
    cut = min(range(1, len(parts) + 1), key=lambda place: abs(2 * len(" ".join(parts[:place])) - len(words)))
    return "\n".join(part for part in (" ".join(parts[:cut]), " ".join(parts[cut:])) if part)


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
    """The measured validation numbers of a curve; the dot is the checkpoint chosen."""
    measured = curve[curve["validation"].notna()]
    axis.plot(measured["step"], measured["validation"], color=colour, linewidth=1.6, label="validation")
    chosen = measured[measured["chosen"].astype(bool)]
    axis.plot(chosen["step"], chosen["validation"], "o", color=colour, markersize=7, label="chosen")
