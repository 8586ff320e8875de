"""Methods by tasks, as accuracies: the table as data, and as Markdown, CSV and metrics.

Accuracies are fractions; they become percent only where a person reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipeline.evaluation.verdicts import BETTER, WORSE
from pipeline.reporting.budgets import Trainings
from pipeline.reporting.measured import DIFFERENCES, ESTIMATES, READ, RULES, SIGNIFICANT
from pipeline.reporting.papers import MOVED_TO, PUBLISHED_MODEL_NAME, row_name
from pipeline.reporting.wording import (
    READING,
    WARNING,
    WITHOUT_MODEL,
    cell_text,
    markdown_row,
    percent,
    rounded,
    signed,
)


@dataclass(frozen=True)
class Trained:
    """How many parameters a method trains.

    bare: without its router, where it has one. base: the base model's. paper: the paper's own count, as it says it.
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
    trained: row to its ``Trained``. trainings: what its rows were trained on. published: (row, task) to the paper's
    accuracy. benchmarks: task to the benchmark the paper used. claims: one sentence on each of the paper's claims.
    labels: names of rows that ``ROWS`` does not give.
    """

    key: str
    title: str
    frame: pd.DataFrame
    domains: Mapping[str, str]
    trained: Mapping[str, Trained]
    published: Mapping[tuple[str, str], float]
    benchmarks: Mapping[str, str]
    claims: tuple[str, ...]
    labels: Mapping[str, str]
    trainings: Trainings = field(default_factory=lambda: Trainings({}))

    @property
    def name(self) -> str:
        """What it is called in the menu: its title up to the first full stop."""
        return self.title.partition(". ")[0]

    def label(self, row: str) -> str:
        """What a row is called."""
        return self.labels.get(row) or row_name(row)

    @property
    def published_model(self) -> str:
        """The model whose numbers the paper gives."""
        return MOVED_TO.get(self.key, PUBLISHED_MODEL_NAME)

    @property
    def rows(self) -> list[str]:
        """Its lines: by their order in the frame, those that were trained on one budget together."""
        return self.trainings.ordered(list(dict.fromkeys(self.frame["row"])))

    @property
    def group_starts(self) -> list[str]:
        """The rows that begin another budget than the row above, where budgets differ."""
        if not self.trainings.differ:
            return []
        sizes = [self.trainings.size(row) for row in self.rows]
        return [row for row, size, before in zip(self.rows[1:], sizes[1:], sizes, strict=False) if size != before]

    def made_by(self, row: str) -> list[str]:
        """What a row trains, and on what, in words; empty where nothing is known of it."""
        counted = self.trained[row].texts if row in self.trained else []
        return counted + self.trainings.texts(row)

    @property
    def tasks(self) -> list[str]:
        """The columns: tasks by their order in the frame, the mean over them last."""
        return sorted(dict.fromkeys(self.frame["task"]), key=lambda task: task not in self.domains)

    def entry(self, row: str, task: str) -> Mapping[str, Any] | None:
        """The numbers of a row on a task, without those that are missing; None where the row has no such task."""
        lines = self.frame[(self.frame["row"] == row) & (self.frame["task"] == task)]
        return None if lines.empty else {str(key): value for key, value in lines.iloc[0].dropna().items()}

    def paper(self, row: str, task: str) -> float | None:
        """The paper's accuracy beside an entry. Where it gives no mean over tasks, the mean of them if it has all."""
        if task in self.domains or (row, task) in self.published:
            return self.published.get((row, task))
        known = [self.published[row, each] for each in self.domains if (row, each) in self.published]
        return sum(known) / len(known) if known and len(known) == len(self.domains) else None

    def rule(self, task: str) -> tuple[str, float] | None:
        """The best rule without a model, and its accuracy; None where the task has none."""
        known = self.frame[(self.frame["task"] == task) & self.frame["rule"].notna()]
        return None if known.empty else (str(known["rule"].iloc[0]), float(known["rule_mean"].iloc[0]))

    @property
    def has_rules(self) -> bool:
        return bool(self.frame["rule"].notna().any())

    def warned(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is not shown to beat the best rule without a model."""
        return "rule_low" in entry and entry["rule_low"] <= 0

    @property
    def notes(self) -> list[str]:
        """The sentences under the table, beside how to read it."""
        labels = {row: self.label(row) for row in self.rows}
        return [*self.trainings.sentences(labels), *self.without_model, *self.together, *self.alternatives]

    @property
    def without_model(self) -> list[str]:
        """A sentence on the rules that need no model, where a task has one."""
        if not self.has_rules:
            return []
        return [
            f"{WARNING} marks what is not shown to beat the best rule without a model on the same prompts, by the "
            "interval of their paired difference. The best rule of a task is the one that is right most often on the "
            "test prompts themselves, which favours the rules."
        ]

    @property
    def together(self) -> list[str]:
        """A sentence on which verdicts stand when all differences of the table are read together."""
        decided = self.frame[self.frame["p_holm"].notna()]
        if len(decided) < 2:
            return []
        lost = decided[decided["verdict"].isin([BETTER, WORSE]) & (decided["p_holm"] > SIGNIFICANT)]
        names = [f"{row_name(line['row'])} on {line['task']}" for line in lost.to_dict("records")]
        outcome = f"these become undecided: {', '.join(names)}" if names else "every verdict stands"
        return [
            f"Each verdict is of its own interval. Read together, by Holm's adjustment of the {len(decided)} "
            f"differences by task: {outcome}."
        ]

    @property
    def alternatives(self) -> list[str]:
        """A sentence for each entry that is the best of several cells."""
        several = self.frame[(self.frame["alternatives"] > 1) & self.frame["task"].isin(list(self.domains))]
        return [
            f"{self.label(line['row'])} on {line['task']}: {line['cells']}, the best of {line['alternatives']} on the "
            "reported examples, in its own favour."
            for line in several.to_dict("records")
        ]


# ---- as files -------------------------------------------------------------------------------------------------------


def comparison_metrics(comparison: Comparison) -> dict[str, Any]:
    """row -> task -> mean, low, high, n, ..., and the differences from base and from the best rule. Fractions."""
    metrics: dict[str, Any] = {}
    for line in comparison.frame.to_dict("records"):
        names = (*ESTIMATES, *DIFFERENCES, *READ, *RULES)
        numbers = {name: line[name] for name in names if not pd.isna(line[name])}
        metrics.setdefault(line["row"], {})[line["task"]] = rounded(numbers)
    return metrics


def comparison_files(comparison: Comparison) -> dict[str, str]:
    """The table as files: name to text."""
    return {
        f"{comparison.key}.md": comparison_markdown(comparison),
        f"{comparison.key}.csv": comparison_csv(comparison),
    }


def comparison_csv(comparison: Comparison) -> str:
    """One line per row and task: accuracies as fractions."""
    lines = []
    for line in comparison.frame.to_dict("records"):
        paper = comparison.published.get((line["row"], line["task"]))
        lines.append({**line, "paper": paper, "paper_model": comparison.published_model if paper is not None else None})
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.6f", lineterminator="\n")


def comparison_markdown(comparison: Comparison) -> str:
    """The claims, the table, the paper's numbers below it, and how to read them."""
    heads = [
        f"{task} ({comparison.domains[task]})" if task in comparison.domains else task.replace("_", " ")
        for task in comparison.tasks
    ]
    if comparison.trained:
        heads.append("trained parameters and budget")
    lines = [
        f"# {comparison.title}",
        "",
        *(f"- {claim}" for claim in comparison.claims),
        "",
        markdown_row(["", *heads]),
        markdown_row(["---"] * (len(heads) + 1)),
    ]
    for row in comparison.rows:
        entries = [comparison.entry(row, task) for task in comparison.tasks]
        texts = [entry_text(entry, warned=comparison.warned(entry)) if entry else "–" for entry in entries]
        if comparison.trained:
            texts.append("; ".join(comparison.made_by(row)) or "–")
        lines.append(markdown_row([comparison.label(row), *texts]))
    if comparison.has_rules:
        texts = [rule_text(comparison.rule(task)) for task in comparison.tasks]
        lines.append(markdown_row([WITHOUT_MODEL, *texts, *(["no model"] if comparison.trained else [])]))
    lines += published_markdown(comparison)
    lines += ["", READING, *comparison.notes]
    return "\n".join(lines) + "\n"


def published_markdown(comparison: Comparison) -> list[str]:
    """The paper's numbers, in a table of their own under the benchmarks they are of; no line where there are none."""
    tasks = [
        task for task in comparison.tasks if any(comparison.paper(row, task) is not None for row in comparison.rows)
    ]
    rows = [row for row in comparison.rows if any(comparison.paper(row, task) is not None for task in tasks)]
    if not rows:
        return []
    heads = [comparison.benchmarks.get(task, "mean over them") for task in tasks]
    lines = ["", markdown_row([f"*paper, {comparison.published_model}*", *heads])]
    lines.append(markdown_row(["---"] * (len(tasks) + 1)))
    for row in rows:
        known = [comparison.paper(row, task) for task in tasks]
        texts = ["not in the paper" if value is None else percent(value, 2) for value in known]
        # the paper's base model is not the run's, whatever that is called
        lines.append(markdown_row([row_name(row) if row == "base" else comparison.label(row), *texts]))
    return lines


def rule_text(rule: tuple[str, float] | None) -> str:
    """A rule and its accuracy, as a person reads them."""
    return "no rule" if rule is None else f"{percent(rule[1])} ({rule[0]})"


def entry_text(entry: Mapping[str, Any], *, warned: bool) -> str:
    """The numbers of a row on a task, as a person reads them. warned: see ``Comparison.warned``."""
    text = f"{percent(entry['mean'])} [{percent(entry['low'])}, {percent(entry['high'])}], n={entry['n']}"
    text += f" {WARNING}" if warned else ""
    if "diff" in entry:
        interval = f"[{signed(entry['diff_low'])}, {signed(entry['diff_high'])}]"
        text += f"; Δ {signed(entry['diff'])} {interval} {entry['verdict']}"
        text += f" ({entry['reason']})" if entry["reason"] else ""
    if "read_diff" in entry:
        interval = f"[{signed(entry['read_low'])}, {signed(entry['read_high'])}]"
        text += f"; of read and finished Δ {signed(entry['read_diff'])} {interval}, n={entry['read_n']:.0f}"
    return f"{text}; unparsed {percent(entry['unparsed'])}, truncated {percent(entry['truncated'])}"
