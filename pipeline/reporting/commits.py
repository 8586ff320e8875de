"""How the report's numbers differ between two commits, with intervals.

    python -m pipeline.reporting.commits [BEFORE [AFTER]]

reads the committed reports of both (AFTER: by default the files as they are) and writes ``reports/compare.html``. It is
a command and not a stage, since its page depends on git's history, which DVC does not look at: DVC would call a stale
page up to date.

Where both commits hold the answers of a row and task to the same prompts, the difference is paired, example by example,
as everywhere else in the report. Otherwise only the two means and intervals of ``metrics.json`` are known. The
difference then has the interval of two independent samples, each half-width the root of the sum of the squares of
theirs, which is wider than necessary if the prompts were the same.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.artifacts import write_text
from pipeline.core.config import settings
from pipeline.core.errors import UserError
from pipeline.core.reading import yaml_of
from pipeline.evaluation.intervals import MEAN_OVER_TASKS, Estimate, Resampling, estimate, verdict
from pipeline.reporting import site
from pipeline.reporting.papers import TITLES
from pipeline.reporting.tables.hyperparameters import flattened

REPORTS = Path("reports")
NOW = "the files as they are"
RESAMPLING = Resampling(resamples=2000, seed=0)
USAGE = (
    "usage: python -m pipeline.reporting.commits [BEFORE [AFTER]]  "
    "(commits; default: HEAD against the files as they are)"
)


@dataclass(frozen=True)
class Snapshot:
    """The report of one commit. answers: of each task that has them, as ``site.answers_script`` wrote them."""

    name: str
    metrics: Mapping[str, Any]
    params: Mapping[str, Any]
    answers: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Change:
    """A row and task of a table in both commits. before, after: as in metrics.json; None where it is not there."""

    row: str
    task: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    difference: Estimate | None
    paired: bool

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return ""
        return "unchanged" if not any(self.difference[:3]) else verdict(self.difference)


# ---- reading ---------------------------------------------------------------------------------------------------------


def git(*words: str) -> bytes | None:
    """What git says; None where it fails."""
    try:
        return subprocess.run(["git", *words], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise UserError("expected git, which is not there; install it to compare commits") from None
    except subprocess.CalledProcessError:
        return None


def read(commit: str | None) -> Snapshot:
    """The report of a commit, or of the working tree for None."""
    if commit is None:
        name = NOW
    else:
        headline = git("log", "-1", "--format=%h %s", commit, "--")
        if headline is None:
            raise UserError(f"expected a commit of this folder's git history, got '{commit}'; see 'git log'")
        name = headline.decode().strip()
    metrics = content(commit, REPORTS / "metrics.json")
    if metrics is None:
        remedy = "run 'dvc repro report'" if commit is None else "name a commit that has it"
        raise UserError(f"expected {REPORTS}/metrics.json in {name}, which is not there; {remedy}")
    try:
        values = json.loads(metrics)
        params = settings(yaml_of(content(commit, Path("params.yaml")) or "{}", "params.yaml"), "")
        tasks = [task for table in TITLES for row in values.get(table, {}).values() for task in row]
        texts = {task: content(commit, REPORTS / f"site/data/{task}.js") for task in dict.fromkeys(tasks)}
        answers = {task: site.read_answers(text) for task, text in texts.items() if text}
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"expected the report of {name} to be readable, got: {error}; run 'dvc repro report' again"
        ) from None
    return Snapshot(name, values, params, answers)


def content(commit: str | None, path: Path) -> str | None:
    """A file of a commit, or of the working tree for None; None where it is not there."""
    if commit is None:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    shown = git("show", f"{commit}:./{path}")
    return None if shown is None else shown.decode()


# ---- comparing -------------------------------------------------------------------------------------------------------


def changes(before: Snapshot, after: Snapshot) -> dict[str, list[Change]]:
    """Every row and task of every table of accuracies, by table, in the order of the commit after."""
    tables: dict[str, list[Change]] = {}
    for table in TITLES:
        old, new = before.metrics.get(table, {}), after.metrics.get(table, {})
        for row in dict.fromkeys([*new, *old]):
            for task in dict.fromkeys([*new.get(row, {}), *old.get(row, {})]):
                was, now = old.get(row, {}).get(task), new.get(row, {}).get(task)
                difference, pairs = None, None
                if was and now:
                    span = sorted({*new[row]} - {MEAN_OVER_TASKS}) if task == MEAN_OVER_TASKS else [task]
                    pairs = paired(before, after, row, span)
                    difference = estimate(pairs, RESAMPLING) if pairs else independent(was, now)
                tables.setdefault(table, []).append(Change(row, task, was, now, difference, bool(pairs)))
    return tables


def paired(before: Snapshot, after: Snapshot, row: str, tasks: Sequence[str]) -> list[np.ndarray]:
    """After minus before, example by example, for each task; empty unless both asked the same prompts of every task."""
    pairs = []
    for task in tasks:
        if task not in before.answers or task not in after.answers:
            return []
        was, now = before.answers[task], after.answers[task]
        old, new = accuracies(was, row), accuracies(now, row)
        if was["prompts"] != now["prompts"] or old is None or new is None:
            return []
        pairs.append(new - old)
    return pairs


def accuracies(texts: Mapping[str, Any], row: str) -> np.ndarray | None:
    """A row's accuracy on each prompt, over its seeds; None where it has no cells, or alternatives to choose from."""
    cells = [cell for cell in texts["cells"].values() if cell["row"] == row]
    if not cells or len({cell["seed"] for cell in cells}) < len(cells):
        return None
    return np.mean([[right for _, _, right in cell["answers"]] for cell in cells], axis=0)


def independent(before: Mapping[str, Any], after: Mapping[str, Any]) -> Estimate:
    """The difference of two estimates of which only the intervals are known."""
    difference = after["mean"] - before["mean"]
    down = np.hypot(after["mean"] - after["low"], before["high"] - before["mean"])
    up = np.hypot(after["high"] - after["mean"], before["mean"] - before["low"])
    return Estimate(difference, difference - float(down), difference + float(up), min(before["n"], after["n"]))


def settings_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Place in params.yaml, value before, value after, wherever they differ."""
    was, now = dict(flattened(before, "")), dict(flattened(after, ""))
    for place in dict.fromkeys([*now, *was]):
        if was.get(place) != now.get(place):
            yield place.removeprefix("."), was.get(place, "–"), now.get(place, "–")


# ---- writing ---------------------------------------------------------------------------------------------------------


def page(before: Snapshot, after: Snapshot) -> str:
    """The page that compares them."""
    content = {
        "before": before.name,
        "after": after.name,
        "tables": [(TITLES[key], lines) for key, lines in changes(before, after).items()],
        "settings": list(settings_changed(before.params, after.params)),
    }
    overview = site.Page("index.html", "Overview", "", "overview.html", {})
    shown = site.Page("compare.html", "Two commits", "What changed between two commits", "changes.html", content)
    profile = after.params.get("profile", "unknown")
    return site.render(shown, [("", [overview, shown])], {"about": f"profile {profile}"})


def main(argv: Sequence[str]) -> None:
    if len(argv) > 2 or any(word.startswith("-") for word in argv):
        sys.exit(USAGE)
    try:
        before, after = read(argv[0] if argv else "HEAD"), read(argv[1] if len(argv) > 1 else None)
        write_text(REPORTS / "compare.html", page(before, after))
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"{REPORTS}/compare.html: {before.name} against {after.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
