"""The papers' claims with what every run says of them: as a table, as the rows of the page, and as counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.claims import DOES_NOT_HOLD, HOLDS, NOT_MEASURED, PAPERS, VERDICTS, Claim, Judged, counts
from pipeline.reporting.papers import TITLES
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import hundredths

OWN = "this run"
# The pages that show what is no table of accuracies, by the claim's table.
PAGES = {
    "dispatch": "site/dispatch.html",
    "glue": "site/glue.html",
    "alpaca_eval": "site/alpaca_eval_judged.html",
    "parameters": "site/parameters.html",
    "curves": "site/curves.html",
    "alpha": "site/alpha.html",
    "spectra": "site/spectra.html",
    "seconds": "runs/index.html",
}
PUBLISHED_PAGE = "site/published.html"
COLOURS = {HOLDS: "better", DOES_NOT_HOLD: "worse"}  # classes of the style sheet


@dataclass(frozen=True)
class Judge:
    """A run with what it says of each claim. name: of a published run, or ``OWN``. model: its base model."""

    name: str
    model: str
    judged: Sequence[Judged]

    @property
    def label(self) -> str:
        return f"{self.model}, {self.name}"


@dataclass(frozen=True)
class Entry:
    """What one run says of a claim, as the page shows it. path: of the page with the numbers, under the report."""

    run: str
    judged: Judged
    path: str

    @property
    def colour(self) -> str:
        """The class of the style sheet."""
        return COLOURS.get(self.judged.verdict, "")

    @property
    def table(self) -> str:
        """What the table is called that it was judged by."""
        return TITLES.get(self.judged.table, self.judged.table.replace("_", " ")).partition(". ")[0]


@dataclass(frozen=True)
class Row:
    """A claim with its entries by model. unmeasured: why none of the runs says anything; empty where one does."""

    claim: Claim
    entries: dict[str, list[Entry]]
    unmeasured: str


def models(judges: Iterable[Judge]) -> list[str]:
    """The base models, that of the run itself first."""
    return list(dict.fromkeys(judge.model for judge in judges))


def page_of(judge: Judge, table: str) -> str:
    """The page that shows the numbers of a table of a run."""
    if judge.name != OWN:
        return f"{PUBLISHED_PAGE}#{judge.name}"
    return PAGES.get(table, f"site/{table}.html")


def rows_of(judges: Sequence[Judge]) -> dict[str, list[Row]]:
    """The rows of the page, by paper."""
    papers: dict[str, list[Row]] = {}
    for each in zip(*(judge.judged for judge in judges), strict=True):
        claim = each[0].claim
        entries: dict[str, list[Entry]] = {}
        for judge, judged in zip(judges, each, strict=True):
            if judged.verdict != NOT_MEASURED:
                entry = Entry(judge.name, judged, page_of(judge, judged.table))
                entries.setdefault(judge.model, []).append(entry)
        reason = next((judged.reason for judged in each if judged.reason), "No run has the rows that it compares.")
        papers.setdefault(PAPERS[claim.paper], []).append(Row(claim, entries, "" if entries else reason))
    return papers


def claims_table(judges: Sequence[Judge]) -> Listing:
    """A line for each claim and run that measured it; a single one for a claim that none did."""
    lines: list[tuple[str | int | float | None, ...]] = []
    for rows in rows_of(judges).values():
        for row in rows:
            claim = row.claim
            about = (claim.id, claim.paper, claim.place, claim.says)
            for model, entries in row.entries.items():
                lines += [(*about, model, entry.run, *_numbers(entry.judged)) for entry in entries]
            if not row.entries:
                lines.append((*about, None, None, NOT_MEASURED, *[None] * 6, row.unmeasured))
    columns = (
        "id", "paper", "place", "claim", "model", "run", "verdict", "effect", "low", "high", "n", "seeds", "table",
        "by pair and task",
    )  # fmt: skip
    note = (
        "Effects are in points, in the direction of the claim: above zero speaks for it. Low and high bound the 95 % "
        "bootstrap interval. What is counted (parameters, seconds, singular values) has no interval, and its effect is "
        "the number itself, a part of one. A claim is judged by the intervals of its pairs and tasks, joined as "
        "data/published/claims.yaml says."
    )
    return Listing("claims", "Claims. What the papers claim, and what the runs say", columns, tuple(lines), note)


def _numbers(judged: Judged) -> tuple[str | int | float | None, ...]:
    """The columns from the verdict on."""
    effect = judged.effect
    if effect is None or judged.counted:
        bounds: tuple[float | None, ...] = (None if effect is None else round(effect.mean, 6), None, None)
    else:
        bounds = tuple(None if value is None else hundredths(value) for value in effect[:3])
    n = None if effect is None else effect.n
    return (judged.verdict, *bounds, n, judged.seeds, judged.table, judged.details)


def claims_metrics(judges: Sequence[Judge]) -> dict[str, Any]:
    """How many claims have each verdict: of the run itself, and under ``published`` of each published run."""
    own = {name: count for judge in judges if judge.name == OWN for name, count in counts(judge.judged).items()}
    others = {judge.name: counts(judge.judged) for judge in judges if judge.name != OWN}
    return {**own, "published": others} if others else own


def summary(judges: Sequence[Judge]) -> Listing:
    """How many claims have each verdict, a line for each run."""
    rows: list[tuple[str | int | float | None, ...]] = []
    for judge in judges:
        numbers = counts(judge.judged)
        rows.append((judge.label, *(numbers[verdict.replace(" ", "_")] for verdict in VERDICTS)))
    return Listing("claims_counted", "How many claims", ("run", *VERDICTS), tuple(rows))
