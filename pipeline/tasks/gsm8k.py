"""Math, trained: GSM8K (arXiv 2110.14168), word problems of grade school. 7 473 to train on, 1 319 to test.

Targets are the written solutions without their calculator notes (``<<48/2=24>>``).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import numbers

REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"
TABLES = {
    split: Table(
        columns=("question", "answer"),
        origins=(Origin("hub", "openai/gsm8k", REVISION, f"main/{split}-00000-of-00001.parquet"),),
        mirror=(f"gsm8k/{split}.jsonl",),
    )
    for split in ("train", "test")
}
SYSTEM = "Solve the problem step by step. End with a line of '#### ' and the number that answers it."


class Options(Section):
    """No options."""


def question(row: Mapping[str, Any]) -> str:
    return row["question"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    return {split: [_example(split, *pair) for pair in enumerate(rows)] for split, rows in tables.items()}


def _example(split: str, number: int, row: Mapping[str, Any]) -> Example:
    solution, _, answer = re.sub(r"<<[^>]*>>", "", row["answer"]).rpartition("####")
    return Example(
        id=f"gsm8k-{split}-{number}",
        messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": row["question"]}),
        target=f"{solution.strip()}\n#### {answer.strip()}",
        meta={"question": row["question"], "answer": answer.strip().replace(",", "")},
    )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        numbers.score(example.id, answer, example.meta["answer"], asks_for_mark=True)
        for example, answer in zip(examples, answers, strict=True)
    ]
