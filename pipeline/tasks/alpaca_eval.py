"""AlpacaEval v1 (github.com/tatsu-lab/alpaca_eval): 805 instructions, answers compared with text_davinci_003's.

No answer is right or wrong: ``score`` tells only whether anything was answered. Win rates come from judges
(``pipeline.scoring.preference``), over outputs in AlpacaEval's own JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import preference

REVISION = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
# Models whose comparisons with the reference GPT-4 has annotated: what a judge's agreement is measured on.
ANNOTATED = "alpaca-7b claude gpt4 llama-2-7b-chat-hf phi-2 text_davinci_001".split()
RESULTS = "cd543a149df89434d8a54582c0151c0b945c3d20"
TABLES = {
    "test": Table(
        columns=("instruction", "output", "generator", "dataset"),
        origins=(Origin("hub", "tatsu-lab/alpaca_eval", REVISION, "alpaca_eval.json"),),
        mirror=("alpaca_eval_v1/alpaca_eval.jsonl",),
    ),
    "annotations": Table(
        columns=("instruction", "output_1", "output_2", "generator_2", "preference"),
        origins=tuple(
            Origin("github", "tatsu-lab/alpaca_eval", RESULTS, f"results/{model}/alpaca_eval_gpt4/annotations.json")
            for model in ANNOTATED
        ),
        mirror=tuple(f"alpaca_eval_v1/leaderboard/{model}.alpaca_eval_gpt4.annotations.json.gz" for model in ANNOTATED),
    ),
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
    return [preference.score(example.id, answer) for example, answer in zip(examples, answers, strict=True)]
