"""The figures of an experiment on interference."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, field_axes, grid, percent_axis, svg
from pipeline.reporting.wording import signed


def interference(matrix: pd.DataFrame, name: str) -> str:
    """Methods by skills: points lost (orange) or gained (green) by training together; bold: not undecided."""
    rows, tasks = list(dict.fromkeys(matrix["row"])), list(dict.fromkeys(matrix["task"]))
    largest = max(0.01, matrix["diff"].abs().max())
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, width=2.2 + 1.25 * len(tasks), height=0.8 + 0.5 * len(rows))
        axis = axes[0, 0]
        for line in matrix.to_dict("records"):
            place = tasks.index(line["task"]), rows.index(line["row"])
            colour = COLOURS[1] if line["diff"] < 0 else COLOURS[2]
            strength = 0.04 + 0.7 * abs(line["diff"]) / largest
            axis.add_patch(matplotlib.patches.Rectangle(place, 1, 1, facecolor=colour, alpha=strength))
            weight = "normal" if line["verdict"] == "undecided" else "bold"
            axis.text(place[0] + 0.5, place[1] + 0.5, signed(line["diff"]), ha="center", va="center", fontweight=weight)
        field_axes(axis, len(rows), len(tasks))
        axis.set_xticks(np.arange(len(tasks)) + 0.5, [task.replace("_", " ") for task in tasks])
        axis.set_yticks(np.arange(len(rows)) + 0.5, [row.replace("_", " ") for row in rows])
        reference = matrix["reference"].iloc[0].replace("_", " ")
        axis.set_title(f"together less {reference}, points")
    return svg(figure, name, f"Change of {', '.join(tasks)} by training together, for {', '.join(rows)}")


def apart(counts: Mapping[str, int], step: float = 1.05) -> dict[str, float]:
    """Places of numbers on a logarithmic axis: numbers closer to each other than ``step`` are drawn that far apart."""
    groups: list[list[str]] = []
    for row in sorted(counts, key=counts.__getitem__):
        if groups and counts[row] < step * counts[groups[-1][-1]]:
            groups[-1].append(row)
        else:
            groups.append([row])
    places: dict[str, float] = {}
    for group in groups:
        middle = float(np.exp(np.mean([np.log(counts[row]) for row in group])))
        places |= {row: middle * step ** (place - (len(group) - 1) / 2) for place, row in enumerate(group)}
    return {row: places[row] for row in counts}


def against_parameters(
    points: Mapping[str, tuple[int, Sequence[float]]], base: Sequence[float] | None, name: str
) -> str:
    """Mean accuracy with its interval against the number of trained parameters; dashed: the base model.

    Methods of about the same size stand side by side, so that none hides another.
    """
    places = apart({row: parameters for row, (parameters, _) in points.items()})
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, width=5.6, height=3.4)
        axis = axes[0, 0]
        for place, (row, (_, (mean, low, high))) in enumerate(points.items()):
            colour = COLOURS[place % len(COLOURS)]
            axis.plot([places[row]] * 2, [low, high], color=colour, linewidth=2)
            marker = "osD^v"[place // len(COLOURS) % 5]
            axis.plot([places[row]], [mean], marker, color=colour, markersize=7, label=row.replace("_", " "))
        if base is not None:
            axis.axhline(base[0], color=INK, linestyle="--", linewidth=0.9, alpha=0.7, label="base model")
        axis.set_xscale("log")
        axis.set_xlabel("trained parameters; of about the same number, side by side")
        axis.set_ylabel("mean accuracy over skills")
        percent_axis(axis, "y")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(figure, name, f"Accuracy against trained parameters of {', '.join(points)}")


def growth(lines: Mapping[str, Sequence[tuple[int, Sequence[float]]]], name: str) -> str:
    """Mean accuracy, on the skills that are always there, against how many are trained together; a line a method."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, width=4.8, height=3.0)
        axis = axes[0, 0]
        for place, (method, points) in enumerate(lines.items()):
            numbers = [count for count, _ in points]
            colour = COLOURS[place % len(COLOURS)]
            means, lows, highs = zip(*(estimate for _, estimate in points), strict=True)
            axis.plot(numbers, means, "o-", color=colour, label=method)
            axis.fill_between(numbers, lows, highs, color=colour, alpha=0.15)
        axis.set_xticks(sorted({count for points in lines.values() for count, _ in points}))
        axis.set_xlabel("skills trained together")
        axis.set_ylabel("accuracy")
        percent_axis(axis, "y")
        axis.legend(fontsize=8)
    return svg(figure, name, f"Accuracy by the number of skills, for {', '.join(lines)}")
