"""The figures of routers: which subspaces open for which skill."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.reporting.figures.draw import COLOURS, STYLE, grid, heat, panels, svg


def gates(means: pd.DataFrame, name: str) -> str:
    """The router's mean gate (0 closed, 1 open) on validation prompts: skills (rows) by subspaces (columns)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, width=1.8 + 0.95 * means.shape[1], height=0.9 + 0.5 * len(means))
        axis = axes[0, 0]
        draw_gates(axis, means)
        axis.set_xlabel("subspace")
        axis.set_ylabel("prompts of")
    return svg(figure, name, f"Mean gate of each subspace for the skills {', '.join(means.index)}")


def gate_panels(gates: Mapping[str, pd.DataFrame], name: str) -> str:
    """One panel a router: the mean gate of each subspace (columns) on prompts of each skill (rows)."""
    with matplotlib.rc_context(STYLE):
        deepest = max(len(means) for means in gates.values())
        figure, axes = panels(len(gates), min(3, len(gates)), width=3.1, height=0.9 + 0.4 * deepest)
        for axis, (row, means) in zip(axes, gates.items(), strict=True):
            draw_gates(axis, means)
            axis.set_title(row.replace("_", " "), fontsize=9)
    return svg(figure, name, f"Mean gate of each subspace by skill, for {', '.join(gates)}")


def draw_gates(axis: Axes, means: pd.DataFrame) -> None:
    """Mean gates as fields: skills (rows) by subspaces (columns)."""
    values = means.to_numpy()
    heat(axis, values, [[f"{value:.2f}" for value in row] for row in values], COLOURS[2])
    axis.set_xticks(np.arange(means.shape[1]) + 0.5, [str(column + 1) for column in range(means.shape[1])])
    axis.set_yticks(np.arange(len(means)) + 0.5, list(means.index))
