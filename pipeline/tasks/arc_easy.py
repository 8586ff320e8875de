"""Reasoning, trained: ARC-Easy (arXiv 1803.05457), school science with choices. 2 251 to train on, 2 376 to test."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import choices

REVISION = "210d026faf9955653af8916fad021475a3f00453"
TABLES = {
    split: Table(
        columns=("id", "question", "choices", "answerKey"),
        origins=(Origin("hub", "allenai/ai2_arc", REVISION, f"ARC-Easy/{split}-00000-of-00001.parquet"),),
        mirror=(f"arc/arc_easy/{split}.json",),
    )
    for split in ("train", "test")
}


class Options(Section):
    """form: the choices stand under letters, one of which is asked for; or the question stands alone (``cloze``), and
    the text of each choice is weighed as its answer (decoding: ``choose_by``)."""

    form: Literal["letters", "cloze"] = "letters"


def question(row: Mapping[str, Any]) -> str:
    return row["question"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    example = choices.cloze if options.form == "cloze" else choices.example
    return {
        split: [
            example(row["id"], row["question"], row["choices"]["text"], row["choices"]["label"].index(row["answerKey"]))
            for row in rows
        ]
        for split, rows in tables.items()
    }


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], example.meta["choices"])
        for example, answer in zip(examples, answers, strict=True)
    ]
