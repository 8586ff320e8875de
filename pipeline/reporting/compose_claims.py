"""The page of the papers' claims: the list, the headline figure above it, and what every run says."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.reporting.figures.claims import forest
from pipeline.reporting.measured import Statistics
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run
from pipeline.reporting.site import Figure, Page
from pipeline.reporting.tables.claims import OWN, Judge, models, rows_of, summary


def judges_of(run: Run, statistics: Statistics, others: Sequence[tuple[Published, Statistics]]) -> list[Judge]:
    """The run and the published ones, each with what it says of the papers' claims; none without a list of claims."""
    judges = [Judge(OWN, run.base["base"], statistics.claims)]
    judges += [Judge(other.name, other.run.base["base"], measured.claims) for other, measured in others]
    return judges if statistics.claims else []


def headline(judges: Sequence[Judge]) -> list[Figure]:
    """The figure above the claims, where one of them has an effect in points."""
    drawn = forest(judges, "claims")
    caption = (
        "Every claim that a run measured in points: its effect, with the 95 % interval, in the direction of the claim. "
        "Right of the dashed line speaks for it. Filled: it holds, or it does not. Hollow: undecided. Pale: not "
        "interpretable. A claim over several pairs and tasks is drawn at the mean over them and judged by its rule; "
        "one about some of them is drawn at the one that speaks for it most. One that allows a margin holds if its "
        "interval lies right of minus the margin."
    )
    return [Figure("claims", drawn, caption)] if drawn else []


def claims_page(judges: Sequence[Judge]) -> Iterator[Page]:
    """The page of the papers' claims, where there is a list of them."""
    if judges:
        content: dict[str, Any] = {"papers": rows_of(judges), "models": models(judges), "summary": summary(judges)}
        content["figure"] = next(iter(headline(judges)), None)
        yield Page("site/claims.html", "Claims", "What the papers claim, and what holds here", "claims.html", content)
