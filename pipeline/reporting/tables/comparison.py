"""Methods by tasks, as accuracies: the table as data, and as Markdown, CSV and metrics.

Accuracies are fractions; they become percent only where a person reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.reporting.measured import DIFFERENCES, ESTIMATES, SIGNIFICANT
from pipeline.reporting.papers import MOVED_TO, PUBLISHED_MODEL_NAME, row_name
from pipeline.reporting.wording import READING, cell_text, markdown_row, percent, rounded, signed


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
    baselines: task to the accuracies that need no model (``majority``, ``random``). trained: row to its ``Trained``.
    published: (row, task) to the paper's accuracy. benchmarks: task to the benchmark the paper used.
    claims: one sentence on each of the paper's claims. labels: names of rows that ``ROWS`` does not give.
    """

    key: str
    title: str
    frame: pd.DataFrame
    domains: Mapping[str, str]
    baselines: Mapping[str, Mapping[str, float]]
    trained: Mapping[str, Trained]
    published: Mapping[tuple[str, str], float]
    benchmarks: Mapping[str, str]
    claims: tuple[str, ...]
    labels: Mapping[str, str]

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
        return list(dict.fromkeys(self.frame["row"]))

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

    @property
    def without_model(self) -> list[str]:
        """A sentence on the accuracies that need no model, where a task has one."""
        parts = []
        for name, words in (("majority", "always giving the commonest answer"), ("random", "a choice at random")):
            known = [(task, self.baselines.get(task, {}).get(name)) for task in self.tasks]
            shares = [f"{percent(value)} % of {task}" for task, value in known if value is not None]
            parts += [f"{words} is right for {' and '.join(shares)}"] if shares else []
        return [f"What needs no model: {'; '.join(parts)}."] if parts else []

    @property
    def together(self) -> list[str]:
        """A sentence on which verdicts stand when all differences of the table are read together."""
        decided = self.frame[self.frame["p_holm"].notna()]
        if len(decided) < 2:
            return []
        lost = decided[(decided["verdict"] != "undecided") & (decided["p_holm"] > SIGNIFICANT)]
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
    """row -> task -> mean, low, high, n, ..., and the difference from base where there is one. Fractions."""
    metrics: dict[str, Any] = {}
    for line in comparison.frame.to_dict("records"):
        numbers = {name: line[name] for name in (*ESTIMATES, *DIFFERENCES) if not pd.isna(line[name])}
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
        heads.append("trained parameters")
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
        texts = [entry_text(entry) if entry else "–" for entry in entries]
        if comparison.trained:
            texts.append("; ".join(comparison.trained[row].texts) if row in comparison.trained else "–")
        lines.append(markdown_row([comparison.label(row), *texts]))
    lines += published_markdown(comparison)
    lines += ["", READING, *comparison.without_model, *comparison.together, *comparison.alternatives]
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


def entry_text(entry: Mapping[str, Any]) -> str:
    """The numbers of a row on a task, as a person reads them."""
    text = f"{percent(entry['mean'])} [{percent(entry['low'])}, {percent(entry['high'])}], n={entry['n']}"
    if "diff" in entry:
        interval = f"[{signed(entry['diff_low'])}, {signed(entry['diff_high'])}]"
        text += f"; Δ {signed(entry['diff'])} {interval} {entry['verdict']}"
    return f"{text}; unparsed {percent(entry['unparsed'])}, truncated {percent(entry['truncated'])}"
