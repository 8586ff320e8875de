"""A table in a few lines of text: what a finished run says in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluation.intervals import Resampling, compare
from pipeline.evaluation.rules import Rule, best_rules
from pipeline.reporting.wording import percent, signed

REFERENCE = "base"


def lines(cells: Mapping[str, Mapping[str, Any]], folder: Path, resampling: Resampling) -> list[str]:
    """Rows × tasks: accuracy with its 95 % interval, the paired difference from the base model, and what that says.

    cells: of the plan, those of one table. folder: of the scores. Cells that are not scored are left out.
    """
    frames = [
        frame.assign(row=cell["row"], task=cell["task"], seed=cell["seed"], cell=key, parsed=frame["parsed"].notna())
        for key, cell in cells.items()
        if (path := folder / f"{key}.parquet").is_file()
        for frame in [pd.read_parquet(path)]
    ]
    if not frames:
        return []
    scores = pd.concat(frames, ignore_index=True)
    tasks = list(dict.fromkeys(scores["task"]))
    compared = compare(scores, resampling, REFERENCE, rules=_rules(tasks, folder)).to_dict("records")
    table = [("task", "row", "accuracy, %", "n", "against base", "")]
    for line in sorted(compared, key=lambda line: tasks.index(line["task"]) if line["task"] in tasks else len(tasks)):
        interval = f"{percent(line['mean'])} [{percent(line['low'])}, {percent(line['high'])}]"
        difference = ""
        if not pd.isna(line["diff"]):
            difference = f"{signed(line['diff'])} [{signed(line['diff_low'])}, {signed(line['diff_high'])}]"
        said = "" if pd.isna(line["verdict"]) else line["verdict"]
        reason = line["reason"] if isinstance(line["reason"], str) else ""
        table.append(
            (line["task"], line["row"], interval, str(line["n"]), difference, ": ".join(filter(None, (said, reason))))
        )
        if line["row"] == REFERENCE and isinstance(line["rule"], str):
            table.append((line["task"], "no model", percent(line["rule_mean"]), "", "", line["rule"]))
    return _aligned(table)


def _rules(tasks: Iterable[str], folder: Path) -> dict[str, Rule]:
    """The best rule without a model of each task whose rules were tried."""
    paths = {task: folder / f"heuristics/{task}.parquet" for task in tasks}
    return best_rules({task: pd.read_parquet(path) for task, path in paths.items() if path.is_file()})


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
