"""The first page: a few numbers, one chart of all methods, and the papers' claims with marks."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.verdicts import NOT_INTERPRETABLE, UNDECIDED
from pipeline.reporting import overview
from pipeline.reporting.claims import DOES_NOT_HOLD, HOLDS, NOT_MEASURED, PAPERS, Judged, counts
from pipeline.reporting.figures.overview import methods
from pipeline.reporting.overview import Group
from pipeline.reporting.read import Run
from pipeline.reporting.site import Figure, Page

MARKS = {HOLDS: "✓", DOES_NOT_HOLD: "✗", UNDECIDED: "~", NOT_INTERPRETABLE: "?", NOT_MEASURED: "–"}
CAPTION = (
    "Every method on the mean over its tasks, with the 95 % interval; dashed: the base model. Filled: better or worse "
    "than the base model by the interval of their paired difference. Hollow: undecided, or not to be interpreted."
)


def chart(groups: Sequence[Group]) -> list[Figure]:
    """The chart, where a table has rows."""
    return [Figure("methods", methods(groups, "methods"), CAPTION)] if groups else []


def overview_page(run: Run, groups: Sequence[Group], judged: Sequence[Judged], facts: Mapping[str, str]) -> Page:
    """The page. judged: what the run says of each claim. facts: what it was."""
    content: dict[str, Any] = {
        "facts": facts,
        "numbers": overview.numbers_of(groups, judged),
        "figure": next(iter(chart(groups)), None),
        "papers": by_paper(judged),
        "marks": MARKS,
        "counted": counts(judged) if judged else {},
    }
    return Page("index.html", "Overview", f"What adapting {run.base['base']} brings", "overview.html", content)


def by_paper(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """The claims that were measured, by paper."""
    papers: dict[str, list[Judged]] = {}
    for one in judged:
        if one.verdict != NOT_MEASURED:
            papers.setdefault(PAPERS[one.claim.paper], []).append(one)
    return papers
