"""AlpacaEval v1 (github.com/tatsu-lab/alpaca_eval): 805 instructions, answers compared with text_davinci_003's.

There is no right answer: ``score`` tells only whether there is one at all, and how long it is beside the reference.
Win rates come from judges (``pipeline.scoring.preference``), over the outputs in AlpacaEval's own JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table

REVISION = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
TABLES = {
    "test": Table(
        columns=("instruction", "output", "generator", "dataset"),
        origins=(Origin("hub", "tatsu-lab/alpaca_eval", REVISION, "alpaca_eval.json"),),
        mirror=("alpaca_eval_v1/alpaca_eval.jsonl",),
    )
}


class Options(Section):
    """No options."""


def question(row: Mapping[str, Any]) -> str:
    return row["instruction"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    return {
        "train": [],
        "test": [
            Example(
                id=f"alpaca_eval-{number}",
                messages=({"role": "user", "content": row["instruction"]},),
                target=row["output"],
                meta={"question": row["instruction"], "reference": row["generator"], "subset": row["dataset"]},
            )
            for number, row in enumerate(tables["test"])
        ],
    }


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        Score(
            id=example.id,
            value=float(bool(answer.strip())),
            correct=bool(answer.strip()),
            parsed=answer.strip() or None,
        )
        for example, answer in zip(examples, answers, strict=True)
    ]
