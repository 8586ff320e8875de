"""Alpaca (github.com/tatsu-lab/stanford_alpaca): 52 002 instructions with text-davinci-003's answers.

There is no right answer, and nothing is tested on it; see ``ultrafeedback``. Its four kinds of instruction
(``kind_of``) are tasks of their own, so that CS-ReFT can give each of them a subspace: ``alpaca_editing``,
``alpaca_explaining``, ``alpaca_naming`` and ``alpaca_writing``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Table
from pipeline.tasks.ultrafeedback import score

__all__ = ["TABLES", "Options", "kind_of", "native_splits", "needed", "question", "score"]

COLUMNS = ("instruction", "input", "output")
TABLES = {
    "train_all": Table(
        columns=COLUMNS,
        origins=(
            Origin(
                "hub",
                "tatsu-lab/alpaca",
                "dce01c9b08f87459cf36a430d809084718273017",
                "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
            ),
        ),
    ),
    "train_random_9k": Table(
        columns=COLUMNS,
        origins=(
            Origin(
                "github",
                "gpt4life/alpagasus",
                "95ad3e52510df8c0a2f0dd6cbe50b501acde83a1",
                "data/random/random_9k.json",
                "dbb217523fb750e4c56013844e22f5f3363c8c8b01013df5b39e8cabec0e48b0",
            ),
        ),
        mirror=("alpaca/alpagasus/random_9k.json",),
    ),
}
Kind = Literal["editing", "explaining", "naming", "writing"]
# First words of instructions without a text to work on. What has another first word asks for a text to be written.
FIRST: dict[Kind, frozenset[str]] = {
    "explaining": frozenset(
        "analyze are can compare define describe discuss do does explain how in is summarize tell what when where "
        "which who why".split()
    ),
    "naming": frozenset(
        "brainstorm calculate categorize choose classify come determine find give identify list make name pick predict "
        "provide recommend select sort suggest think".split()
    ),
}
ABSENT = ("", "<noinput>", "no input", "n/a", "none")


class Options(Section):
    """sample: all rows, or 9 229 drawn from them. kind: the instructions of one kind; None: all of them."""

    sample: Literal["all", "random_9k"] = "all"
    kind: Kind | None = None


def needed(options: Options) -> set[str]:
    """The table that is read."""
    return {f"train_{options.sample}"}


def question(row: Mapping[str, Any]) -> str:
    """The instruction, and what it is about where that stands apart."""
    return "\n\n".join(part for part in (row["instruction"], row["input"]) if part)


def kind_of(row: Mapping[str, Any]) -> Kind:
    """What an instruction asks for: work on a text that it brings, an explanation, names of things, or a new text."""
    if row["input"].strip().lower().rstrip(".") not in ABSENT:
        return "editing"
    first = row["instruction"].split()[0].strip(",.:?").lower()
    return next((kind for kind, words in FIRST.items() if first in words), "writing")


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    trained = [
        Example(
            id=f"alpaca-{number}",
            messages=({"role": "user", "content": question(row)},),
            target=row["output"].strip(),
            meta={"question": question(row), "subset": options.kind or "alpaca"},
        )
        for number, row in enumerate(tables[f"train_{options.sample}"])
        if row["instruction"].strip() and row["output"].strip() and options.kind in (None, kind_of(row))
    ]
    return {"train": trained, "test": []}
