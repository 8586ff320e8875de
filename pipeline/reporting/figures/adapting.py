"""The figures of self-adaptation: what dispatchers name, what searches find, and how fast."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, grid, heat, percent_axis, svg


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
                        [((part["domain"] == true) & (part["predicted"] == domain)).sum() for domain in named]
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
    return svg(
        figure, name, f"Coefficients of the experts for {', '.join(mixture['task'] for mixture in mixtures.values())}"
    )


def searches(mixtures: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """The best accuracy so far on the few prompts against the prompts run, one panel a task, one line a search."""
    tasks = [mixture["task"] for mixture in mixtures.values()]
    named = max(tasks.count(task) for task in tasks)  # below the axes
    tasks = list(dict.fromkeys(tasks))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(tasks), 1, width=3.6, height=2.6 + 0.2 * named)
        for place, (axis, task) in enumerate(zip(axes[0], tasks, strict=True)):
            of_task = [mixture for mixture in mixtures.values() if mixture["task"] == task and mixture["trace"]]
            rows = [mixture["row"] for mixture in of_task]
            for number, mixture in enumerate(of_task):
                row, trace = mixture["row"], mixture["trace"]
                label = row if rows.count(row) == 1 else f"{row}, seed {mixture['seed']}"
                best = np.maximum.accumulate([row["best_accuracy"] for row in trace])
                colour = COLOURS[number % len(COLOURS)]
                # Lines of equal accuracy would hide each other: each has its own dashes and mark.
                style, mark = ("-", "--", "-.", ":")[number % 4], "osD^vP"[number % 6]
                axis.step([row["prompts"] for row in trace], best, where="post", color=colour, linestyle=style)
                axis.plot(trace[-1]["prompts"], best[-1], mark, color=colour, label=label)
            axis.set_title(task)
            axis.set_xlabel("prompts run")
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            percent_axis(axis, "y")
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22))
            if place == 0:
                axis.set_ylabel("best accuracy so far")
    return svg(figure, name, f"Best accuracy on the few prompts of {', '.join(tasks)} against prompts run")
