"""Math, unseen: MATH (arXiv 2103.03874), problems of competitions in seven subjects. 7 500 to train on, 5 000 to test.

Answers are LaTeX in ``\\boxed{}`` and compared by value. Two solutions of the train split have none and are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import latex

REVISION = "21a5633873b6a120296cce3e2df9d5550074f4a3"
SUBJECTS = (
    "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"
).split()
TABLES = {
    split: Table(
        columns=("problem", "level", "type", "solution"),
        origins=tuple(
            Origin("hub", "EleutherAI/hendrycks_math", REVISION, f"{subject}/{split}-00000-of-00001.parquet")
            for subject in SUBJECTS
        ),
        mirror=tuple(f"math_hendrycks/{part}/{subject}.json" for part in parts for subject in SUBJECTS),
    )
    for split, parts in (("train", ("train", "val")), ("test", ("test",)))  # the mirror has cut 747 off the train split
}
SYSTEM = "Solve the problem step by step. Put the final answer in \\boxed{}."


class Options(Section):
    """No options."""


def question(row: Mapping[str, Any]) -> str:
    return row["problem"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    return {
        split: [_example(split, number, row) for number, row in enumerate(rows) if latex.boxed(row["solution"])]
        for split, rows in tables.items()
    }


def _example(split: str, number: int, row: Mapping[str, Any]) -> Example:
    return Example(
        id=f"math-{split}-{number}",
        messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": row["problem"]}),
        target=row["solution"],
        meta={
            "question": row["problem"],
            "answer": latex.boxed(row["solution"]),
            "subset": row["type"],
            "level": row["level"],
        },
    )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        latex.score(example.id, answer, example.meta["answer"])
        for example, answer in zip(examples, answers, strict=True)
    ]
