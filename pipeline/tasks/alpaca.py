"""Alpaca (github.com/tatsu-lab/stanford_alpaca): 52 002 instructions with text-davinci-003's answers.

There is no right answer, and nothing is tested on it; see ``ultrafeedback``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Table
from pipeline.tasks.ultrafeedback import score

__all__ = ["TABLES", "Options", "native_splits", "question", "score"]

REVISION = "dce01c9b08f87459cf36a430d809084718273017"
FILE = "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"
TABLES = {
    "train": Table(
        columns=("instruction", "input", "output"),
        origins=(Origin("hub", "tatsu-lab/alpaca", REVISION, FILE),),
    )
}


class Options(Section):
    """No options."""


def question(row: Mapping[str, Any]) -> str:
    """The instruction, and what it is about where that stands apart."""
    return "\n\n".join(part for part in (row["instruction"], row["input"]) if part)


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    trained = [
        Example(
            id=f"alpaca-{number}",
            messages=({"role": "user", "content": question(row)},),
            target=row["output"].strip(),
            meta={"question": question(row), "subset": "alpaca"},
        )
        for number, row in enumerate(tables["train"])
        if row["output"].strip()
    ]
    return {"train": trained, "test": []}
