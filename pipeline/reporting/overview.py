"""What a run found in a few numbers: every method's mean over its tasks, and what the first page and DVC say of them.

Tables that ask the same tasks of the same base model are one group here: so a chart has all methods beside each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.verdicts import BETTER, WORSE
from pipeline.reporting.claims import HOLDS, NOT_MEASURED, Judged
from pipeline.reporting.planned import BASE
from pipeline.reporting.read import Run
from pipeline.reporting.tables.comparison import Comparison, Trained
from pipeline.reporting.wording import hundredths, joined, percent, signed

ROLES = {"trained": "trained tasks", "unseen": "unseen tasks"}


@dataclass(frozen=True)
class Line:
    """A method on a group's tasks. numbers: of ``Comparison.entry``. page: of the table that has it."""

    row: str
    label: str
    numbers: Mapping[str, Any]
    page: str
    trained: Trained | None = None

    @property
    def decided(self) -> bool:
        """Whether its interval says that it is better or worse than the base model, and nothing withholds that."""
        return self.numbers.get("verdict") in (BETTER, WORSE)

    @property
    def difference(self) -> str:
        """From the base model, in points with its interval; empty for the base model."""
        if "diff" not in self.numbers:
            return ""
        low, high = self.numbers["diff_low"], self.numbers["diff_high"]
        return f"{signed(self.numbers['diff'])} [{signed(low)}, {signed(high)}]"


@dataclass(frozen=True)
class Group:
    """The methods that were asked the same tasks. key: ``trained``, ``unseen``, or the name of a table."""

    key: str
    tasks: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def words(self) -> str:
        """The tasks, for a title."""
        return f"{ROLES[self.key]} ({self.named})" if self.key in ROLES else self.named

    @property
    def named(self) -> str:
        """The tasks' names."""
        return joined([task.replace("_", " ") for task in self.tasks])

    @property
    def base(self) -> Line | None:
        return next((line for line in self.lines if line.row == BASE), None)

    @property
    def highest(self) -> list[Line]:
        """The methods of the highest mean, as it is shown, in the tables' order; the base model left out.

        Several share it where they are equal to the digit. That others lie below says nothing of what tells them apart.
        """
        methods = [line for line in self.lines if line.row != BASE]
        means = [round(100 * line.numbers["mean"], 2) for line in methods]
        return [line for line, mean in zip(methods, means, strict=True) if mean == max(means)]


@dataclass(frozen=True)
class Number:
    """One of the first page's numbers. page: where it comes from."""

    value: str
    about: str
    page: str


def groups_of(run: Run, comparisons: Sequence[Comparison]) -> list[Group]:
    """The groups of several tasks, those of the roles first; where there are none, those of a single one."""
    found: dict[frozenset[str], Group] = {}
    roles = {frozenset(run.settings.tasks_of(role)): role for role in ROLES}
    for table in comparisons:
        if any(cell.base != BASE for cell in run.plan.cells_of(table.key).values()):
            continue
        tasks = tuple(task for task in table.tasks if task in table.domains)
        if not (asked := frozenset(tasks)):
            continue
        known = found.get(asked, Group(roles.get(asked, table.key), tasks, ()))
        there = {line.row for line in known.lines}
        added = tuple(line for line in _lines(table, tasks) if line.row not in there)
        found[asked] = Group(known.key, tasks, known.lines + added)
    places = {role: place for place, role in enumerate(ROLES)}
    groups = sorted(found.values(), key=lambda group: places.get(group.key, len(places)))
    several = [group for group in groups if len(group.tasks) > 1]
    return [group for group in several or groups if group.lines]


def _lines(table: Comparison, tasks: Sequence[str]) -> Iterator[Line]:
    """A table's rows, each on the mean over its tasks (or its only one)."""
    column = next((task for task in table.tasks if task not in table.domains), tasks[0])
    for row in table.rows:
        if (numbers := table.entry(row, column)) is not None:
            yield Line(row, table.label(row), numbers, f"site/{table.key}.html", table.trained.get(row))


def numbers_of(groups: Sequence[Group], judged: Sequence[Judged]) -> list[Number]:
    """At most five: the base model, each group's highest mean, what the first of them trains, how many claims hold."""
    first = groups[0] if groups else None
    numbers = []
    if first and first.base:
        line = first.base
        about = f"right: the base model on {first.words}"
        numbers.append(Number(f"{percent(line.numbers['mean'])} %", about, line.page))
    for group in groups[:2]:
        if highest := group.highest:
            names = joined([line.label for line in highest])
            about = f"right: {names}, the highest{' mean' * (len(group.tasks) > 1)} on {group.words}"
            about += f"; {highest[0].difference} points from the base model" if highest[0].difference else ""
            numbers.append(Number(f"{percent(highest[0].numbers['mean'])} %", about, highest[0].page))
    for line in first.highest[:1] if first else ():
        if line.trained and line.trained.parameters:
            share = 100 * line.trained.parameters / line.trained.base
            about = f"of the base model's parameters is what {line.label} trains: {line.trained.texts[0]}"
            numbers.append(Number(f"{share:.2g} %", about, "site/parameters.html"))
    measured = [one for one in judged if one.verdict != NOT_MEASURED]
    if measured:
        holds = sum(one.verdict == HOLDS for one in measured)
        about = "of the papers' claims that were measured hold here"
        numbers.append(Number(f"{holds} of {len(measured)}", about, "site/claims.html"))
    return numbers


def headline_metrics(groups: Sequence[Group], judged: Sequence[Judged]) -> dict[str, float | int | None]:
    """The same as a few flat metrics: accuracies in percent by row, and how many claims hold.

    A row of an earlier group, as the base model is, has the group's name with its own: ``base_unseen``.
    """
    metrics: dict[str, float | int | None] = {}
    for group in groups:
        for line in group.lines:
            name = f"{line.row}_{group.key}" if line.row in metrics else line.row
            metrics[name] = hundredths(line.numbers["mean"])
    return {**metrics, "claims": sum(one.verdict == HOLDS for one in judged)}
