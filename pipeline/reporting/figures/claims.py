"""The headline figure: the effect that each of the papers' claims has in each run, with its interval."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.evaluation.verdicts import NOT_INTERPRETABLE
from pipeline.reporting.claims import DOES_NOT_HOLD, HOLDS, Judged
from pipeline.reporting.figures.draw import COLOURS, INK, STYLE, grid, svg
from pipeline.reporting.tables.claims import Judge, rows_of
from pipeline.reporting.wording import signed

MARKERS = "osD^vP"
LINE = 0.21  # inches for each run of a claim


def forest(judges: Sequence[Judge], name: str) -> str | None:
    """A line for each claim and run that has an effect in points; None where there is none.

    Filled: the claim holds, or does not. Hollow: it is undecided. Pale: it is not interpretable.
    """
    labels = {judge.name: judge.label for judge in judges}
    drawn: dict[str, list[tuple[str, list[tuple[str, Judged]]]]] = {}
    for paper, rows in rows_of(judges).items():
        for row in rows:
            known = [(one.run, one.judged) for part in row.entries.values() for one in part if in_points(one.judged)]
            if known:
                drawn.setdefault(paper, []).append((row.claim.name, known))
    if not drawn:
        return None
    shown = [
        run for run in labels if any(run == one for part in drawn.values() for _, known in part for one, _ in known)
    ]
    styles = {
        run: (COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)])
        for place, run in enumerate(shown)
    }
    lines = sum(1 + sum(len(known) + 0.4 for _, known in part) for part in drawn.values())
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(1, 1, width=8.4, height=1.0 + 0.22 * len(shown) + LINE * lines)
        axis = axes[0, 0]
        _draw(axis, drawn, styles)
        handles = [
            Line2D([], [], color=colour, marker=marker, linestyle="-", label=labels[run])
            for run, (colour, marker) in styles.items()
        ]
        figure.legend(handles=handles, fontsize=8.5, loc="outside lower left")
    return svg(figure, name, f"Effects of the papers' claims in {', '.join(labels[run] for run in shown)}")


def in_points(judged: Judged) -> bool:
    """Whether a claim has an effect that is a difference with an interval."""
    return judged.effect is not None and judged.effect.low is not None and not judged.counted


def _draw(
    axis: Axes,
    drawn: Mapping[str, Sequence[tuple[str, Sequence[tuple[str, Judged]]]]],
    styles: Mapping[str, tuple[str, str]],
) -> None:
    """The lines, from the top down, with the claims' names on the left and the papers' above theirs."""
    place, ticks, names = 0.0, list[float](), list[str]()
    for paper, claims in drawn.items():
        axis.text(0.0, place, paper, transform=axis.get_yaxis_transform(), fontweight="bold", va="center", fontsize=9)
        place += 1
        for claim, known in claims:
            ticks.append(place + (len(known) - 1) / 2)
            names.append(claim)
            for run, judged in known:
                _interval(axis, place, judged, *styles[run])
                place += 1
            place += 0.4
    axis.axvline(0, color=INK, linewidth=0.9, linestyle="--", alpha=0.7)
    axis.set_yticks(ticks, names, fontsize=8.5)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.set_ylim(place - 0.4, -0.8)
    axis.xaxis.set_major_locator(MaxNLocator(8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(value).removesuffix(".0") if value else "0"))
    axis.grid(visible=True, axis="x", alpha=0.15, linewidth=0.8)
    axis.set_xlabel("against the claim      ←      points      →      for the claim")


def _interval(axis: Axes, place: float, judged: Judged, colour: str, marker: str) -> None:
    """One effect with its interval."""
    effect = judged.effect
    if effect is None or effect.low is None or effect.high is None:
        return
    alpha = 0.35 if judged.verdict == NOT_INTERPRETABLE else 1.0
    axis.plot([effect.low, effect.high], [place, place], color=colour, linewidth=1.8, alpha=alpha)
    fill = colour if judged.verdict in (HOLDS, DOES_NOT_HOLD) else "none"
    axis.plot([effect.mean], [place], marker, color=colour, markerfacecolor=fill, markersize=5.5, alpha=alpha)
