"""The figures of what the top singular components hold."""

from collections.abc import Sequence

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, panels, percent_axis, svg


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
    """The share of every expert's Σ|z − 1| in the top components, and that of Σσ in grey; means over layers."""
    kinds, experts = list(dict.fromkeys(frame["module"])), list(dict.fromkeys(frame["of"]))
    means = frame.groupby(["of", "module", "top"], sort=False)["share"].mean().reset_index()
    with matplotlib.rc_context(STYLE):
        figure, axes = share_panels(kinds, "Σ|z − 1|")
        for kind, axis in axes.items():
            for number, expert in enumerate(experts):
                line = means[(means["of"] == expert) & (means["module"] == kind)]
                colour = "#8a8f98" if expert == "sigma" else COLOURS[(number - 1) % len(COLOURS)]
                label = "σ" if expert == "sigma" else expert.removeprefix("svf-")
                axis.plot([0, *line["top"]], [0, *line["share"]], color=colour, linewidth=1.4, label=label)
        axes[kinds[0]].legend(fontsize=8, loc="lower right")
    return svg(figure, name, f"Share of the experts' changes in the top components of {', '.join(kinds)}")
