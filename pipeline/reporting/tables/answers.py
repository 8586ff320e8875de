"""What the answers of every cell are like, so that accuracy is not taken for what it is not."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.evaluation.answers import OFTEN, SELDOM, habits
from pipeline.evaluation.verdicts import LOST
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import percent, rounded

SHARES = ("cut", "unread", "unmarked", "accuracy")
NUMBERS = ("n", *SHARES, "read_accuracy", "read_n", "tokens")
COLUMNS = (
    "cell", "n", "cut, %", "unread, %", "unmarked, %", "accuracy, %", "of read and finished, %", "n of these",
    "mean tokens", "picked, % by position", "right, % by position", "accuracy where it is right, %",
)  # fmt: skip
NOTE = (
    "Cut: ended by the token limit. Unread: no answer could be read off it. Unmarked: an answer was read, but not "
    "where the task asks for it. Where a prompt offers choices, the last columns have, in the order of mention, how "
    "often each position is picked, how often it is right, and the accuracy on the prompts where it is right."
)


def answers_table(lines: pd.DataFrame) -> Listing:
    """A line for each cell. lines: of ``pipeline.evaluation.answers.answers``."""
    rows = []
    for line in lines.to_dict("records"):
        shares = [float(percent(line[name])) for name in SHARES]
        read = None if pd.isna(line["read_accuracy"]) else float(percent(line["read_accuracy"]))
        by_position = [spread(line[name]) for name in ("picked", "right", "within")]
        rows.append((line["cell"], line["n"], *shares, read, line["read_n"], round(line["tokens"], 1), *by_position))
    return Listing("answers", "Answers. Cut, unread, and picked", COLUMNS, tuple(rows), " ".join([*told(lines), NOTE]))


def spread(shares: Sequence[float | None]) -> str | None:
    """Shares by position in percent, ``57 / 30 / 13``; None where there are no choices."""
    return " / ".join("none" if one is None else percent(one, 0) for one in shares) or None


def told(lines: pd.DataFrame) -> list[str]:
    """A sentence on the cells that pick one position by habit, and one on those whose answers are cut or unread."""
    sentences = []
    if named := habits(lines):
        each = [
            f"{cell} (position {place} for {percent(picked, 0)} %, right for {percent(right, 0)} %)"
            for cell, place, picked, right in named
        ]
        sentences.append(
            f"These cells pick one position for more than {percent(OFTEN, 0)} % of the prompts although it is right "
            f"for less than {percent(SELDOM, 0)} %: {', '.join(each)}."
        )
    elif (lines["picked"].map(len) > 0).any():
        sentences.append(
            f"No cell picks one position for more than {percent(OFTEN, 0)} % of the prompts where it is right for less "
            f"than {percent(SELDOM, 0)} %."
        )
    lost = lines[(lines["cut"] > LOST) | (lines["unread"] > LOST)].to_dict("records")
    if lost:
        each = [
            f"{line['cell']} ({percent(line['cut'], 0)} % cut, {percent(line['unread'], 0)} % unread)" for line in lost
        ]
        sentences.append(f"More than {percent(LOST, 0)} % of the answers are cut or unread in {', '.join(each)}.")
    return sentences


def answers_metrics(lines: pd.DataFrame) -> dict[str, Any]:
    """cell -> its shares, its accuracies and its mean tokens. Fractions."""
    return {
        line["cell"]: rounded({name: line[name] for name in NUMBERS if not pd.isna(line[name])})
        for line in lines.to_dict("records")
    }
