"""Math, trained: GSM8K (arXiv 2110.14168), word problems of grade school. 7 473 to train on, 1 319 to test.

Targets are the written solutions without their calculator notes (``<<48/2=24>>``).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

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
LINES = 2  # of a worked solution, at least, its answer aside
SYSTEM = "Solve the problem step by step. End with a line of '#### ' and the number that answers it."


class Options(Section):
    """worked: how many solved problems stand in the chat before each question (default: none, the papers' form).

    They show a small model how short a solution is, and the line that it ends with. The training problems with the
    shortest solutions of at least ``LINES`` lines are taken, and not trained on.
    """

    worked: int = Field(default=0, ge=0)


def question(row: Mapping[str, Any]) -> str:
    return row["question"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    examples = {split: [_example(split, *pair) for pair in enumerate(rows)] for split, rows in tables.items()}
    of_steps = [example for example in examples["train"] if example.target.count("\n") >= LINES]
    shown = sorted(of_steps, key=lambda example: (len(example.target), example.id))[: options.worked]
    examples["train"] = [example for example in examples["train"] if example not in shown]
    return {split: [example.after(shown) for example in several] for split, several in examples.items()}


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
