"""GLUE by classification heads, as the ReFT paper's fourth table has it (arXiv 2404.03592).

The stage ``classify`` leaves, for each head, what it is (``<key>.json``) and what it labelled (``<key>.labels.jsonl``).
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.artifacts import read_json, read_jsonl
from pipeline.reporting.measured import DIFFERENCES
from pipeline.reporting.papers import row_name
from pipeline.reporting.read import planned
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.tables.reft import PAPERS_ROWS
from pipeline.reporting.wording import hundredths

TASKS = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb")  # the order of the paper's numbers by task
PUBLISHED_MODEL, PUBLISHED_MODEL_NAME = "roberta-base", "RoBERTa-base"
REFERENCE = "lora"  # the method that the other methods' heads are compared with


def read_heads(folder: Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """What was measured of each head, with its ``answers``: id, label, and the label given. keys: of ``classify``."""
    return [
        {
            **read_json(planned(folder / f"{key}.json", f"classify@{key}")),
            "cell": key,
            "answers": read_jsonl(planned(folder / f"{key}.labels.jsonl", f"classify@{key}")),
        }
        for key in sorted(keys)
    ]


def head_table(
    lines: pd.DataFrame, heads: Sequence[Mapping[str, Any]], base_parameters: int, published: Mapping[str, Any]
) -> Listing:
    """Methods by tasks, in the task's own metric.

    lines: of ``pipeline.evaluation.further``, one for each method and task. heads: of ``read_heads``.
    base_parameters: of the base model. published: the papers' numbers.
    """
    counts = {head["method"]: head["parameters_without_head"] for head in heads}
    papers = published.get("reft", {}).get("glue", {}).get(PUBLISHED_MODEL, {})
    rows: list[tuple[str | int | float | None, ...]] = []
    for line in lines.sort_values("task", key=lambda names: names.map(_place), kind="stable").to_dict("records"):
        values = [hundredths(line[key]) for key in ("mean", "low", "high", *DIFFERENCES)]
        verdict = None if pd.isna(line["verdict"]) else line["verdict"]
        share = 100 * counts[line["row"]] / base_parameters
        each = dict(zip(TASKS, papers.get(PAPERS_ROWS.get(line["row"], ""), {}).get("tasks", ()), strict=False))
        about = (line["task"], row_name(line["row"]), line["metric"], *values, verdict)
        rows.append((*about, line["n"], line["seeds"], share, each.get(line["task"])))
    means = "; ".join(
        f"{name} {line['mean']}" + (f" with {line['params']} %" if "params" in line else "")
        for name, line in papers.items()
    )
    note = (
        "A linear head over edits or LoRA, on GLUE's development splits, in each task's own metric × 100, with its "
        f"95 % bootstrap interval; Δ is the paired difference from {row_name(REFERENCE)}. Parameters are counted "
        "without the head, as in the paper."
    )
    if means:
        note += f" The paper's means over eight tasks, of {PUBLISHED_MODEL_NAME}: {means}."
    columns = (
        "task", "method", "metric", "value", "low", "high", "Δ", "Δ low", "Δ high", "verdict", "n", "seeds",
        "% of the base trained", f"paper, {PUBLISHED_MODEL_NAME}",
    )  # fmt: skip
    return Listing("glue", "GLUE. Classification heads over edits", columns, tuple(rows), note)


def _place(task: str) -> int:
    return TASKS.index(task) if task in TASKS else len(TASKS)
