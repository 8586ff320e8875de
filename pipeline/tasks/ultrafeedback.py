"""UltraFeedback (arXiv 2310.01377): 63 967 instructions from six sources, each with four answers that GPT-4 has rated.

There is no right answer, so ``score`` tells only whether there is one at all. Nothing is tested on it: how well
instructions are followed is measured by AlpacaEval (``alpaca_eval``).

**Deviations**: ReFT says that it trains on UltraFeedback, not on which answer. Here it is the one of the highest mean
rating in helpfulness, honesty, instruction following and truthfulness. The data set's own ``overall_score`` is known to
be 10 for some answers that were rated worst.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, Literal

from pydantic import Field

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import preference

REVISION = "40b436560ca83a8dba36114c22ab3c66e43f6d5e"
Source = Literal["evol_instruct", "false_qa", "flan", "sharegpt", "truthful_qa", "ultrachat"]
SOURCES: tuple[Source, ...] = ("evol_instruct", "false_qa", "flan", "sharegpt", "truthful_qa", "ultrachat")
TABLES = {
    f"train_{source}": Table(
        columns=("instruction", "completions"),
        origins=(Origin("hub", "openbmb/UltraFeedback", REVISION, f"{source}.jsonl"),),
    )
    for source in SOURCES
}


class Options(Section):
    """sources: which of the six."""

    sources: tuple[Source, ...] = Field(min_length=1)


def needed(options: Options) -> set[str]:
    """The tables that are read."""
    return {f"train_{source}" for source in options.sources}


def question(row: Mapping[str, Any]) -> str:
    return row["instruction"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    trained = [
        _example(f"{source}-{number}", source, row)
        for source in options.sources
        for number, row in enumerate(tables[f"train_{source}"])
        if _answered(row)
    ]
    return {"train": trained, "test": []}


def _example(id: str, source: str, row: Mapping[str, Any]) -> Example:
    return Example(
        id=id,
        messages=({"role": "user", "content": row["instruction"]},),
        target=max(_answered(row), key=_rating)["response"].strip(),
        meta={"question": row["instruction"], "subset": source},
    )


def _answered(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The answers that say anything."""
    return [answer for answer in row["completions"] if answer["response"].strip()]


def _rating(answer: Mapping[str, Any]) -> float:
    """The mean over the aspects that were rated, 1 to 5; 0 where none was."""
    ratings = [aspect.get("Rating", "") for aspect in answer.get("annotations", {}).values()]
    known = [float(rating) for rating in ratings if str(rating).replace(".", "", 1).isdigit()]
    return mean(known) if known else 0.0


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [preference.score(example.id, answer) for example, answer in zip(examples, answers, strict=True)]
