"""Reasoning, unseen: ARC-Challenge (arXiv 1803.05457), questions that simple baselines get wrong.

1 119 to train on, 1 172 to test. The mirror has them in LLM-Adapters' form of an instruction; question and choices are
read off it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import choices

REVISION = "210d026faf9955653af8916fad021475a3f00453"
TABLES = {
    split: Table(
        columns=(),  # two forms: see _parts
        origins=(Origin("hub", "allenai/ai2_arc", REVISION, f"ARC-Challenge/{split}-00000-of-00001.parquet"),),
        mirror=(f"llm_adapters_commonsense/ARC-Challenge/{split}.json",),
    )
    for split in ("train", "test")
}
_INSTRUCTION = re.compile(r"(?s).*? to the question: (.*?)\n\n(Answer1: .*?)\n\nAnswer format: .*")


class Options(Section):
    """form: the choices stand under letters, one of which is asked for; or the question stands alone (``cloze``), and
    the text of each choice is weighed as its answer (decoding: ``choose_by``)."""

    form: Literal["letters", "cloze"] = "letters"


def question(row: Mapping[str, Any]) -> str:
    return _parts(row)[0]


def _parts(row: Mapping[str, Any]) -> tuple[str, list[str], int]:
    """The question, its choices, and the place of the right one."""
    if "instruction" not in row:
        return row["question"], row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
    match = _INSTRUCTION.fullmatch(row["instruction"])
    assert match, row["instruction"]  # the file is pinned
    texts = [text.strip() for text in re.split(r"\s*Answer\d: ", match[2])[1:]]
    return match[1], texts, int(row["answer"].removeprefix("answer")) - 1


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    example = choices.cloze if options.form == "cloze" else choices.example
    return {
        split: [example(f"arc_challenge-{split}-{number}", *_parts(row)) for number, row in enumerate(rows)]
        for split, rows in tables.items()
    }


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], example.meta["choices"])
        for example, answer in zip(examples, answers, strict=True)
    ]
