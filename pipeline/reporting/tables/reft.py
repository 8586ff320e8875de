"""The ReFT paper's tables (arXiv 2404.03592): commonsense-8 and arithmetic-4 by subset, and AlpacaEval.

Commonsense-8 and arithmetic-4 are here one task each, the union of its subsets, which is trained on once. Their tables
have a column for each subset; an example's id begins with its subset. The win rates of AlpacaEval come from judges. The
fourth table, GLUE, is answered by classification heads and stands in ``tables.heads``. The paper's numbers stand in
data/published/reft.yaml, those by task in the order of ``SUBSETS``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.reporting.papers import row_name
from pipeline.reporting.planned import Cell
from pipeline.reporting.tables.comparison import Trained
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import hundredths

SUBSETS = {
    "commonsense8": ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"),
    "arithmetic4": ("aqua", "gsm8k", "mawps", "svamp"),
}
MEAN = "mean_over_tasks"  # the column that ``pipeline.evaluation.intervals`` adds
DOMAINS = {"commonsense8": "reasoning", "arithmetic4": "math"}
PUBLISHED_MODEL = "llama-7b"  # of the paper's four; LLaMA-7B in ``papers.MOVED_TO``
# What our rows are called in the paper's numbers.
PAPERS_ROWS = {"lora": "lora", "dora": "dora", "reft": "loreft", "direft": "direft"}
ALPACA_EVAL = "alpaca_eval"
ALPACA_EVAL_MODEL = "llama-2-7b"


def by_subset(scores: pd.DataFrame, key: str) -> pd.DataFrame:
    """The scores of a table's cells, with the subset of each example as its task; subsets in the paper's order."""
    names = scores["id"].str.partition("-")[0]
    places = {name: place for place, name in enumerate(SUBSETS[key])}
    order = names.map(lambda name: places.get(name, len(places))).sort_values(kind="stable").index
    return scores.assign(task=names).loc[order]


def rules_by_subset(rules: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What rules without a model are right for, by the subset of each example instead of its task."""
    if not rules:
        return {}
    whole = pd.concat(rules.values())
    return {str(name): part for name, part in whole.groupby(whole["id"].map(lambda one: one.partition("-")[0]))}


def papers_rows(key: str, published: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Our row to the paper's line, in percent: ``mean`` and, where the paper has them, ``params`` and ``tasks``."""
    lines = published.get("reft", {}).get(key, {}).get(PUBLISHED_MODEL, {})
    return {row: lines[name] for row, name in PAPERS_ROWS.items() if name in lines}


def published_of(
    key: str, published: Mapping[str, Any]
) -> tuple[dict[tuple[str, str], float], dict[str, str], dict[str, str]]:
    """The paper's accuracies by row and column, its name for each column, and its share of parameters for each row."""
    accuracies: dict[tuple[str, str], float] = {}
    rows = papers_rows(key, published)
    for row, line in rows.items():
        each = dict(zip(SUBSETS[key], line.get("tasks", ()), strict=False)) | {MEAN: line["mean"]}
        accuracies |= {(row, column): percent / 100 for column, percent in each.items()}
    shares = {row: f"{line['params']} %" for row, line in rows.items() if "params" in line}
    return accuracies, {**{name: name for name in SUBSETS[key]}, MEAN: "mean"}, shares


def alpaca_eval_table(
    lines: Sequence[Mapping[str, Any]],
    cells: Mapping[str, Cell],
    trained: Mapping[str, Trained],
    published: Mapping[str, Any],
) -> Listing | None:
    """Win rates of the cells of the table ``alpaca_eval``, the papers' below them; None where none of them was judged.

    lines: of ``pipeline.evaluation.further.win_rates``. trained: row to what it trains.
    """
    shown = [line for line in lines if line["cell"] in cells and ALPACA_EVAL in cells[line["cell"]].tables]
    if not shown:
        return None
    rows: list[tuple[str | int | float | None, ...]] = []
    for line in shown:
        row = cells[line["cell"]].row
        share = 100 * trained[row].parameters / trained[row].base if row in trained else None
        rates = [hundredths(line[name]) for name in ("win_rate", "low", "high", "agreement")]
        rows.append((row_name(row), share, *rates[:3], line["n"], line["judge"], rates[3]))
    papers = {**published.get("reft", {}).get("alpaca_eval_v1", {}).get(ALPACA_EVAL_MODEL, {})}
    percents: dict[str, float] = {}
    for line in published.get("csreft", {}).get("alpaca_eval_v1", {}).get("rows", ()):
        papers.setdefault(line["method"], line["win_rate"])
        if "params_percent" in line:
            percents[line["method"]] = line["params_percent"]
    for name, rate in papers.items():
        label = f"papers, Llama-2-7B: {name.replace('_', ' ')}"
        rows.append((label, percents.get(name), rate, None, None, 805, "GPT-4", None))
    columns = ("method", "% of the base trained", "win rate, %", "low", "high", "n", "judge", "agrees with GPT-4, %")
    note = (
        "Answers that a judge prefers to text_davinci_003's, with the 95 % bootstrap interval. The papers' numbers are "
        "of another model and another judge; a judge that agrees with GPT-4 about half the time says nothing."
    )
    return Listing("alpaca_eval_judged", "AlpacaEval. Following instructions", columns, tuple(rows), note)
