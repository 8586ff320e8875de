"""The first page's figure: every method on the mean over its tasks, with its interval."""

import textwrap
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, percent_axis, svg
from pipeline.reporting.overview import ROLES, Group
from pipeline.reporting.planned import BASE
from pipeline.reporting.wording import percent

WIDTH = 4.2  # inches: on a telephone it is whole, and its letters can be read


def methods(groups: Sequence[Group], name: str) -> str:
    """A panel for each group, one below the other.

    Filled: better or worse than the base model by the paired interval. Hollow: undecided, or no verdict is given.
    """
    heights = [0.9 + 0.33 * len(group.lines) for group in groups]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, group in zip(axes, groups, strict=True):
            _draw(axis, group)
        axes[-1].set_xlabel("accuracy, mean over the tasks")
    told = "; ".join(f"{line.label} {percent(line.numbers['mean'])} %" for group in groups for line in group.lines)
    return svg(figure, name, f"Accuracy of every method: {told}")


def _draw(axis: Axes, group: Group) -> None:
    for height, line in enumerate(group.lines):
        colour = INK if line.row == BASE else COLOURS[0]
        mean, low, high = (line.numbers[key] for key in ("mean", "low", "high"))
        fill = colour if line.decided or line.row == BASE else "none"
        axis.plot([low, high], [height, height], color=colour, linewidth=2)
        axis.plot([mean], [height], "o", color=colour, markerfacecolor=fill, markersize=6)
        text = f" {percent(mean)}"
        axis.text(1.0, height, text, transform=axis.get_yaxis_transform(), va="center", fontsize=9.5)
    if group.base:
        axis.axvline(group.base.numbers["mean"], color=INK, linestyle="--", linewidth=0.8, alpha=0.6)
    axis.set_yticks(range(len(group.lines)), [_broken(line.label) for line in group.lines], fontsize=9.5)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(group.lines) - 0.5, -0.5)
    title = "\n".join(filter(None, (ROLES.get(group.key, "").capitalize(), group.named)))
    axis.set_title(_broken(title, 30), fontsize=9.5)
    percent_axis(axis, "x")


def _broken(text: str, most: int = 22) -> str:
    """A text in lines of at most ``most`` letters, where a space allows it."""
    return "\n".join(
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, most, break_long_words=False, break_on_hyphens=False)
    )
