"""The report's tables, as data and as Markdown, CSV and metrics.

A ``Comparison`` is a table of accuracies (methods by tasks), a ``Listing`` any other. Accuracies are fractions; they
become percent only where a person reads them.
"""

import contextlib
import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.reporting.measured import DIFFERENCES, ESTIMATES, SIGNIFICANT
from pipeline.reporting.papers import (
    BENCHMARKS,
    MOVED_TO,
    PUBLISHED,
    PUBLISHED_MODEL,
    PUBLISHED_MODEL_NAME,
    PUBLISHED_ROWS,
    PUBLISHED_TRAINED,
    PUBLISHED_UNSEEN,
    ROWS,
    row_name,
)


@dataclass(frozen=True)
class Trained:
    """How many parameters a method trains. bare: without its router, where it has one. base: the base model's.

    paper: what the paper's row of the same kind trains, as it says it.
    """

    parameters: int
    bare: int | None
    base: int
    paper: str | None = None

    @property
    def texts(self) -> list[str]:
        """The count and its share of the base model's; both again without the router; the paper's count."""
        if self.parameters == 0:
            return [cell_text(0)]
        share = f"{100 * self.parameters / self.base:.3g} % of the base"
        paper = [] if self.paper is None else [f"paper: {self.paper}"]
        if self.bare is None:
            return [cell_text(self.parameters), share, *paper]
        bare = f"without router {cell_text(self.bare)}, {100 * self.bare / self.base:.3g} %"
        return [cell_text(self.parameters), share, bare, *paper]


@dataclass(frozen=True)
class Comparison:
    """Methods (rows) by tasks (columns), as accuracies.

    frame: one line per row and task, as ``pipeline.evaluation.intervals.compare`` returns it, against the row ``base``.
    domains: task to domain; a task of the frame without one is the mean over tasks.
    baselines: task to what needs no model (``majority``, ``random``). trained: row to its ``Trained``.
    published: (row, task) to the paper's accuracy; benchmarks: task to the benchmark the paper used.
    claims: what it says of the papers' claims, a sentence each. labels: what rows are called, other than by ``ROWS``.
    """

    key: str
    title: str
    frame: pd.DataFrame
    domains: Mapping[str, str]
    baselines: Mapping[str, Mapping[str, float]]
    trained: Mapping[str, "Trained"]
    published: Mapping[tuple[str, str], float]
    benchmarks: Mapping[str, str]
    claims: tuple[str, ...]
    labels: Mapping[str, str]

    def label(self, row: str) -> str:
        """What a row is called."""
        return self.labels.get(row) or row_name(row)

    @property
    def published_model(self) -> str:
        """The model that the paper's numbers are of."""
        return MOVED_TO.get(self.key, PUBLISHED_MODEL_NAME)

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(self.frame["row"]))

    @property
    def tasks(self) -> list[str]:
        """The columns: tasks by their order in the frame, the mean over them last."""
        return sorted(dict.fromkeys(self.frame["task"]), key=lambda task: task not in self.domains)

    def entry(self, row: str, task: str) -> Mapping[str, Any] | None:
        """One cell, without what it has not got."""
        found = self.frame[(self.frame["row"] == row) & (self.frame["task"] == task)]
        return None if found.empty else {str(key): value for key, value in found.iloc[0].dropna().items()}

    @property
    def without_model(self) -> list[str]:
        """A sentence on what needs no model, where a task has such a thing."""
        said = []
        for name, words in (("majority", "always giving the commonest answer"), ("random", "a choice at random")):
            known = [(task, self.baselines.get(task, {}).get(name)) for task in self.tasks]
            shares = [f"{percent(value)} % of {task}" for task, value in known if value is not None]
            said += [f"{words} is right for {' and '.join(shares)}"] if shares else []
        return [f"What needs no model: {'; '.join(said)}."] if said else []

    def paper(self, row: str, task: str) -> float | None:
        """The paper's accuracy beside a cell; beside the mean over tasks, the mean of the paper's where it has all, if
        the paper gives none."""
        if task in self.domains or (row, task) in self.published:
            return self.published.get((row, task))
        known = [self.published[row, one] for one in self.domains if (row, one) in self.published]
        return sum(known) / len(known) if known and len(known) == len(self.domains) else None

    @property
    def together(self) -> list[str]:
        """A sentence on what is left of the verdicts when all differences of the table are read together."""
        decided = self.frame[self.frame["p_holm"].notna()]
        if len(decided) < 2:
            return []
        lost = decided[(decided["verdict"] != "undecided") & (decided["p_holm"] > SIGNIFICANT)]
        names = [f"{row_name(line['row'])} on {line['task']}" for line in lost.to_dict("records")]
        found = f"these become undecided: {', '.join(names)}" if names else "every verdict stands"
        return [
            f"Each verdict is of its own interval. Read together, by Holm's adjustment of the {len(decided)} "
            f"differences by task: {found}."
        ]

    @property
    def alternatives(self) -> list[str]:
        """A sentence for each cell that was the best of several."""
        several = self.frame[(self.frame["alternatives"] > 1) & self.frame["task"].isin(list(self.domains))]
        return [
            f"{self.label(line['row'])} on {line['task']}: {line['cells']}, the best of {line['alternatives']} on the "
            "reported examples, in its own favour."
            for line in several.to_dict("records")
        ]


@dataclass(frozen=True)
class Listing:
    """A plain table: texts and numbers under headings. note: what it says, or how to read it."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers."""
        return [any(isinstance(row[place], int | float) for row in self.rows) for place in range(len(self.columns))]


def percent(fraction: float, places: int = 1) -> str:
    return f"{100 * fraction:.{places}f}"


def signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def published_of(
    key: str, domains: Mapping[str, str], unseen: Collection[str], published: Mapping[str, Any]
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """The paper's accuracies under our rows and tasks, and the benchmark it measured each task's domain by."""
    if key not in PUBLISHED:
        return {}, {}
    rows = published.get("transformer2", {}).get(PUBLISHED[key], {}).get(PUBLISHED_MODEL, {})
    names = {
        task: name
        for task, domain in domains.items()
        if (name := (PUBLISHED_UNSEEN if task in unseen else PUBLISHED_TRAINED).get(domain))
    }
    accuracies: dict[tuple[str, str], float] = {}
    for row in ROWS:
        measured = rows.get(PUBLISHED_ROWS.get(row, row), {})
        accuracies |= {(row, task): measured[name] / 100 for task, name in names.items() if name in measured}
    return accuracies, {task: BENCHMARKS[name] for task, name in names.items()}


# ---- the other tables -----------------------------------------------------------------------------------------------


def parameter_table(
    provenance: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any], published: Mapping[str, Any]
) -> Listing:
    """How many parameters each trained thing has, with and without a router, beside the base model's."""
    rows: list[tuple[str | int | float | None, ...]] = [
        (f"{base['base']} (base)", None, base["base_parameters"], None, 100.0, None)
    ]
    for name, one in provenance.items():
        count, bare = one.get("parameters"), one.get("parameters_without_router")
        task = one.get("task") or ", ".join(one.get("tasks") or [])
        share = None if count is None else 100 * (count if bare is None else bare) / base["base_parameters"]
        rows.append((name, task, count, bare, share, one["bytes"]))
    papers = published.get("csreft", {}).get("alpaca_eval_v1", {})
    shown = [row for row in papers.get("rows", ()) if row["method"] in ("lora", "loreft", "csreft")]
    paper = "; ".join(f"{row['method']} {row['win_rate']:.2f} % with {row['params_percent']} %" for row in shown)
    note = "The share counts a router out, as the CS-ReFT paper must have done."
    if paper:
        note += (
            f" That paper's own numbers are of another model and benchmark ({papers['base_model']}, AlpacaEval win "
            f"rate with the share of parameters): {paper}."
        )
    columns = ("adapter", "trained on", "parameters", "without router", "% of the base", "bytes")
    return Listing("parameters", "What was trained", columns, tuple(rows), note)


# ---- as files -------------------------------------------------------------------------------------------------------


def comparison_metrics(comparison: Comparison) -> dict[str, Any]:
    """row -> task -> mean, low, high, n, ..., and the difference from base where there is one. Fractions."""
    metrics: dict[str, Any] = {}
    for line in comparison.frame.to_dict("records"):
        numbers = {name: line[name] for name in (*ESTIMATES, *DIFFERENCES) if not pd.isna(line[name])}
        metrics.setdefault(line["row"], {})[line["task"]] = rounded(numbers)
    return metrics


def dispatch_metrics(frame: pd.DataFrame) -> dict[str, Any]:
    """dispatcher -> ``trained`` or ``unseen`` -> accuracy, its interval, and the difference from the prompt."""
    metrics: dict[str, Any] = {}
    names = ("mean", "low", "high", "n", *DIFFERENCES)
    for line in frame.to_dict("records"):
        if line["task"] in ("trained", "unseen"):
            numbers = {name: line[name] for name in names if not pd.isna(line[name])}
            metrics.setdefault(line["row"], {})[line["task"]] = rounded(numbers)
    return metrics


def rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: int(value) if key in ("n", "seeds") else round(float(value), 6) for key, value in numbers.items()}


def comparison_csv(comparison: Comparison) -> str:
    """One line per row and task: accuracies as fractions."""
    lines = []
    for line in comparison.frame.to_dict("records"):
        paper = comparison.published.get((line["row"], line["task"]))
        lines.append({**line, "paper": paper, "paper_model": comparison.published_model if paper is not None else None})
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.6f", lineterminator="\n")


def comparison_markdown(comparison: Comparison) -> str:
    heads = [
        f"{task} ({comparison.domains[task]})" if task in comparison.domains else task.replace("_", " ")
        for task in comparison.tasks
    ]
    if comparison.trained:
        heads.append("trained parameters")
    lines = [
        f"# {comparison.title}",
        "",
        *(f"- {claim}" for claim in comparison.claims),
        "",
        markdown_row(["", *heads]),
    ]
    lines.append(markdown_row(["---"] * (len(heads) + 1)))
    filler = ["–"] if comparison.trained else []
    for row in comparison.rows:
        entries = [comparison.entry(row, task) for task in comparison.tasks]
        texts = [entry_text(entry) if entry else "–" for entry in entries]
        count = ["; ".join(comparison.trained[row].texts)] if row in comparison.trained else filler
        lines.append(markdown_row([comparison.label(row), *texts, *count]))
    lines += published_markdown(comparison)
    lines += ["", READING, *comparison.without_model, *comparison.together, *comparison.alternatives]
    return "\n".join(lines) + "\n"


def published_markdown(comparison: Comparison) -> list[str]:
    """The paper's numbers, a table of their own: under the benchmarks they are of. Nothing where there are none."""
    tasks = [
        task for task in comparison.tasks if any(comparison.paper(row, task) is not None for row in comparison.rows)
    ]
    found = [row for row in comparison.rows if any(comparison.paper(row, task) is not None for task in tasks)]
    if not found:
        return []
    heads = [comparison.benchmarks.get(task, "mean over them") for task in tasks]
    lines = ["", markdown_row([f"*paper, {comparison.published_model}*", *heads])]
    lines.append(markdown_row(["---"] * (len(tasks) + 1)))
    for row in found:
        known = [comparison.paper(row, task) for task in tasks]
        texts = ["not in the paper" if value is None else percent(value, 2) for value in known]
        # its base model is its own, whatever the run's is called
        lines.append(markdown_row([row_name(row) if row == "base" else comparison.label(row), *texts]))
    return lines


READING = (
    "Accuracy in percent, greedy decoding, with its 95 % bootstrap interval and the number of examples; Δ is the "
    "paired difference from the base model in points, with its interval, and better, worse or undecided is what that "
    "interval says. Unparsed: no answer could be read; truncated: cut at the token limit. Numbers marked 'paper' are "
    "of another model on other benchmarks."
)


def entry_text(entry: Mapping[str, Any]) -> str:
    text = f"{percent(entry['mean'])} [{percent(entry['low'])}, {percent(entry['high'])}], n={entry['n']}"
    if "diff" in entry:
        interval = f"[{signed(entry['diff_low'])}, {signed(entry['diff_high'])}]"
        text += f"; Δ {signed(entry['diff'])} {interval} {entry['verdict']}"
    return f"{text}; unparsed {percent(entry['unparsed'])}, truncated {percent(entry['truncated'])}"


def listing_csv(listing: Listing) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(listing.columns)
    writer.writerows([["" if value is None else value for value in row] for row in listing.rows])
    return text.getvalue()


def listing_markdown(listing: Listing) -> str:
    rows = [markdown_row([cell_text(value) for value in row]) for row in listing.rows]
    head = [markdown_row(listing.columns), markdown_row(["---"] * len(listing.columns))]
    return "\n".join([f"# {listing.title}", "", *([listing.note, ""] if listing.note else []), *head, *rows]) + "\n"


def read_listing(folder: Path, key: str) -> Listing:
    """What ``listing_markdown`` and ``listing_csv`` wrote of a table into a folder, read back."""
    head = (folder / f"{key}.md").read_text(encoding="utf-8").splitlines()
    note = "" if head[2].startswith("|") else head[2]
    columns, *rows = csv.reader(io.StringIO((folder / f"{key}.csv").read_text(encoding="utf-8")))
    values = tuple(tuple(_value(text) for text in row) for row in rows)
    return Listing(key, head[0].removeprefix("# "), tuple(columns), values, note)


def _value(text: str) -> str | int | float | None:
    """A cell of a CSV file: nothing, a number, or what it says."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text or None


def cell_text(value: str | int | float | None) -> str:
    """A number as a person reads it: thousands apart, fractions to four digits."""
    if value is None:
        return "–"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return value if isinstance(value, str) else f"{round(value):,}".replace(",", "\u202f")


def markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
