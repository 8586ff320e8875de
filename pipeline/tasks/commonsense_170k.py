"""Commonsense-8 as LLM-Adapters (arXiv 2304.01933) and ReFT train it: on 170 420 instructions drawn from all eight.

The instructions are those of the task ``commonsense``, and so are the test splits and the scorer. No mirror is known to
have the training set: it comes from GitHub.

**Deviations**: an instruction whose question stands in a test split is dropped from training, and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.types import Example, Origin, Table
from pipeline.tasks import commonsense
from pipeline.tasks.commonsense import Options, score

__all__ = ["TABLES", "Options", "native_splits", "needed", "question", "score"]

TRAINED = "train_170k"
TABLES = {
    TRAINED: Table(
        columns=("instruction", "output", "answer"),
        origins=(
            Origin("github", commonsense.REPOSITORY, commonsense.REVISION, "ft-training_set/commonsense_170k.json"),
        ),
    ),
    **{name: table for name, table in commonsense.TABLES.items() if name.startswith("test")},
}


def needed(options: Options) -> set[str]:
    """The tables that are read."""
    return {TRAINED} | {name for name in commonsense.needed(options) if name.startswith("test")}


def question(row: Mapping[str, Any]) -> str:
    """What is asked, without its choices; HellaSwag's are called endings, and stand in the training set alone."""
    return commonsense.question(row).partition("\n\nEnding1: ")[0]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    splits = commonsense.native_splits(tables, options)
    trained = [
        replace(example, meta={**example.meta, "question": question(row)})
        for example, row in zip(splits["train"], tables[TRAINED], strict=True)
    ]
    return {**splits, "train": trained}
