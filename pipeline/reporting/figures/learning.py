"""The figures of what was trained: learning curves and losses."""

from collections.abc import Mapping

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, grid, panels, percent_axis, svg


def learning_curves(curves: Mapping[str, pd.DataFrame], base: Mapping[str, float], name: str) -> str:
    """Figure 4: sampled reward in training (above) and validation accuracy (below), one column a curve.

    base: curve to the base model's accuracy on the test split, drawn dashed. The dot is the checkpoint chosen; runs
    with another coefficient λ of the divergence from the base model, which were not chosen, are pale.
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
    """The measured validation numbers of a curve; the dot is the checkpoint chosen."""
    measured = curve[curve["validation"].notna()]
    axis.plot(measured["step"], measured["validation"], color=colour, linewidth=1.6, label="validation")
    chosen = measured[measured["chosen"].astype(bool)]
    axis.plot(chosen["step"], chosen["validation"], "o", color=colour, markersize=7, label="chosen")
