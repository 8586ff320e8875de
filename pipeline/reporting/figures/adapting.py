"""The figures of self-adaptation: what dispatchers name, what searches find, and how fast."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, grid, heat, panels, percent_axis, svg


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
    """The best accuracy so far on the few prompts against the generation, one panel a search, one line a configuration.

    The thin line is the mean of a generation's elites, where the trace has it.
    """
    shown = {key: mixture for key, mixture in mixtures.items() if mixture["trace"]}
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(shown), min(4, len(shown)), width=3.3, height=3.0)
        for place, (axis, mixture) in enumerate(zip(axes, shown.values(), strict=True)):
            by_configuration: dict[str, list[Mapping[str, Any]]] = {}
            for row in mixture["trace"]:
                by_configuration.setdefault(row["configuration"], []).append(row)
            for number, (configuration, trace) in enumerate(by_configuration.items()):
                # Lines of equal accuracy would hide each other: each has its own dashes and mark.
                style, mark = ("-", "--", "-.", ":")[number % 4], "osD^vP"[number % 6]
                colour = COLOURS[number % len(COLOURS)]
                generations = [row["iteration"] + 1 for row in trace]
                best = np.maximum.accumulate([row["best_accuracy"] for row in trace])
                axis.plot(generations, best, mark, color=colour, linestyle=style, markersize=4, label=configuration)
                if all("elites_accuracy" in row for row in trace):
                    axis.plot(generations, [row["elites_accuracy"] for row in trace], color=colour, linewidth=0.7)
            axis.set_title(f"{mixture['task']}\n{mixture['row']}, seed {mixture['seed']}", fontsize=9.5)
            axis.set_xlabel("generation")
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            percent_axis(axis, "y")
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.25))
            if place % 4 == 0:
                axis.set_ylabel("best accuracy so far")
    titles = [f"{mixture['row']} on {mixture['task']}" for mixture in shown.values()]
    return svg(figure, name, f"Best accuracy on the few prompts by generation, of {', '.join(titles)}")


def scans(mixtures: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """The accuracies of a grid of mixtures in descending order, one panel a scan, one line a configuration."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(mixtures), min(4, len(mixtures)), width=3.0, height=2.4)
        for place, (axis, mixture) in enumerate(zip(axes, mixtures.values(), strict=True)):
            for number, row in enumerate(mixture["trace"]):
                ordered = sorted(row["accuracies"], reverse=True)
                colour = COLOURS[number % len(COLOURS)]
                axis.step(range(1, len(ordered) + 1), ordered, where="mid", color=colour, label=row["configuration"])
            axis.set_title(f"{mixture['task']}, seed {mixture['seed']}", fontsize=9.5)
            axis.set_xlabel("mixture, best first")
            axis.set_ylim(-0.02, 1.02)
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            percent_axis(axis, "y")
            axis.legend(fontsize=7)
            if place % 4 == 0:
                axis.set_ylabel("accuracy")
    return svg(figure, name, f"Accuracies of mixtures on {', '.join(mixture['task'] for mixture in mixtures.values())}")
