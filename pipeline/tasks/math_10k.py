"""Arithmetic-4 as LLM-Adapters (arXiv 2304.01933) and ReFT train it: on some 10 000 problems with their steps.

They are of AQuA, GSM8K and MAWPS; the test splits and the scorer are those of the task ``arithmetic``. No mirror is
known to have the training set: it comes from GitHub.

**Deviations**: a problem that stands in a test split is dropped from training, and counted. Every target ends with the
answer in the words that the scorer reads.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.types import Example, Origin, Table
from pipeline.tasks import arithmetic
from pipeline.tasks.arithmetic import Options, question, score

__all__ = ["TABLES", "Options", "native_splits", "needed", "question", "score"]

TRAINED = "train_10k"
TABLES = {
    TRAINED: Table(
        columns=arithmetic.COLUMNS,
        origins=(Origin("github", arithmetic.REPOSITORY, arithmetic.REVISION, "ft-training_set/math_10k.json"),),
    ),
    **{name: table for name, table in arithmetic.TABLES.items() if name.startswith("test")},
}
_LAST = re.compile(r"\s*(?:Therefore, |So, )?the answer is:?\s*\(?[A-E]\)?\.?\s*$", re.IGNORECASE)


def needed(options: Options) -> set[str]:
    """The tables that are read."""
    return {TRAINED} | {name for name in arithmetic.needed(options) if name.startswith("test")}


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    splits = arithmetic.native_splits(tables, options)
    trained = [_with_steps(example, row) for example, row in zip(splits["train"], tables[TRAINED], strict=True)]
    return {**splits, "train": trained}


def _with_steps(example: Example, row: Mapping[str, Any]) -> Example:
    """A problem with choices is learnt with its steps, too, as the others are."""
    if "choices" not in example.meta:
        return example
    return replace(example, target=f"{_LAST.sub('', row['output'].strip())} {example.target}".strip())
