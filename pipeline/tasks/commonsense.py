"""Commonsense-8 of LLM-Adapters (arXiv 2304.01933): BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC-e, ARC-c, OBQA.

Every row is an instruction whose answer is one of a few words ("the correct answer is answer3"), decoded greedily. The
task is the union of its ``subsets``. A score names its subset, so that one training serves all and each has its own
mean.

**Deviations**
1. The train split is the train splits that are published one by one (BoolQ, both ARCs, OBQA), not the 170 000
   instructions drawn from all eight.
2. Where the mirror is used, HellaSwag is tested on 1 000 labelled rows of its validation split.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import choices

REPOSITORY, REVISION = "AGI-Edgerunners/LLM-Adapters", "816657208af4db747803f87ba40a4c71383fed7a"
FOLDERS = {
    "boolq": "boolq",
    "piqa": "piqa",
    "siqa": "social_i_qa",
    "winogrande": "winogrande",
    "arc_easy": "ARC-Easy",
    "arc_challenge": "ARC-Challenge",
    "openbookqa": "openbookqa",
}
TRAINED = ("boolq", "arc_easy", "arc_challenge", "openbookqa")
HELLASWAG = Origin(
    "hub", "Rowan/hellaswag", "218ec52e09a7e7462a5400043bb9a69a41d06b76", "data/validation-00000-of-00001.parquet"
)


def _table(subset: str, split: str) -> Table:
    path = f"{FOLDERS[subset]}/{split}.json"
    origin = Origin("github", REPOSITORY, REVISION, f"dataset/{path}")
    return Table(("instruction", "output", "answer"), (origin,), (f"llm_adapters_commonsense/{path}",))


TABLES = {
    **{f"train_{subset}": _table(subset, "train") for subset in TRAINED},
    **{f"test_{subset}": _table(subset, "test") for subset in FOLDERS},
    "test_hellaswag": Table(
        ("activity_label", "ctx", "endings", "label"), (HELLASWAG,), ("hellaswag_val1000/hellaswag.jsonl",)
    ),
}
HELLASWAG_ASKED = (
    "Please choose the correct ending to complete the given sentence: {question}\n\n{endings}\n\n"
    "Answer format: ending1/ending2/ending3/ending4"
)
_LABEL = r"\b(?:Answer|Solution|Option)(\d):"
_LABELLED = re.compile(rf"{_LABEL} *(.*?)(?=\s*\b(?:Answer|Solution|Option)\d:|\s*Answer format:)", re.DOTALL)


class Options(Section):
    """subsets: which of the eight, as ``test_<subset>`` among the tables names them."""

    subsets: tuple[str, ...]


def needed(options: Options) -> set[str]:
    """The tables that are read."""
    return {name for name in TABLES if name.partition("_")[2] in options.subsets}


def question(row: Mapping[str, Any]) -> str:
    """What is asked, without its choices and the frame around it."""
    if "ctx" in row:
        return f"{row['activity_label']}: {row['ctx']}"
    asked = re.split(r"\n\n(?:Answer1|Solution1|Option1|Answer format): ?", row["instruction"])[0]
    return re.sub(r"^Please .*?(?:, question|question|sentence): ", "", asked, count=1, flags=re.S)


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for name, rows in tables.items():
        split, _, subset = name.partition("_")
        splits[split] += [_example(f"{subset}-{split}-{number}", subset, row) for number, row in enumerate(rows)]
    return splits


def _example(id: str, subset: str, row: Mapping[str, Any]) -> Example:
    if "ctx" in row:
        texts = {f"ending{number}": text for number, text in enumerate(row["endings"], 1)}
        endings = " ".join(f"Ending{label[-1]}: {text}" for label, text in texts.items())
        asked = HELLASWAG_ASKED.format(question=question(row), endings=endings)
        answer = f"ending{int(row['label']) + 1}"
    else:
        asked, answer = row["instruction"], row["answer"]
        kind = answer.rstrip("0123456789")
        texts = {f"{kind}{number}": text.strip() for number, text in _LABELLED.findall(asked)}
        texts = texts or {"true": "", "false": ""}
    return Example(
        id=id,
        messages=({"role": "user", "content": asked},),
        target=f"the correct answer is {answer}",
        meta={"question": question(row), "answer": answer, "choices": texts, "labels": list(texts), "subset": subset},
    )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        choices.score(example.id, answer, example.meta["answer"], example.meta["choices"])
        for example, answer in zip(examples, answers, strict=True)
    ]
