"""How figures are drawn: SVG texts that have the same bytes each time, readable on a light and on a dark ground.

Text and axes are drawn in one stand-in colour that becomes ``currentColor``. Each file carries its own light and dark
colour, so that it is readable alone as well as inside the page.
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


def percent_axis(axis: Axes, which: Literal["x", "y"]) -> None:
    """Ticks of fractions in percent, with a grid, on one of the axes."""
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(MaxNLocator(4))
    ticks.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(visible=True, axis=which, alpha=0.15, linewidth=0.8)


def field_axes(axis: Axes, rows: int, columns: int) -> None:
    """Axes of fields of one by one, the first row at the top."""
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def heat(axis: Axes, values: np.ndarray, texts: Sequence[Sequence[str]], colour: str) -> None:
    """Numbers from 0 to 1 as fields of one colour, stronger where larger, each with its text."""
    for (row, column), value in np.ndenumerate(values):
        strength = 0.0 if np.isnan(value) else float(np.clip(value, 0, 1))
        field = matplotlib.patches.Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.06 + 0.7 * strength)
        axis.add_patch(field)
        axis.text(column + 0.5, row + 0.5, texts[row][column], ha="center", va="center", fontsize=9.5)
    field_axes(axis, *values.shape)


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
                    line = part.loc[row]
                    colour = INK if row == "base" else COLOURS[(height - 1) % len(COLOURS)]
                    axis.plot([line["low"], line["high"]], [height, height], color=colour, linewidth=2)
                    axis.plot([line["mean"]], [height], "o", color=colour, markersize=6)
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
