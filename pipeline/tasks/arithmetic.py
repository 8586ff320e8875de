"""Arithmetic-4 of LLM-Adapters (arXiv 2304.01933) and ReFT: AQuA (with choices), GSM8K, MAWPS, SVAMP.

The task is the union of its ``subsets``. A score names its subset, so that one training serves all and each has its own
mean.

**Deviations**
1. The train split is the 3 260 published instructions with their steps and MAWPS's train split, not the 10 000 of
   math-10k. Whatever stands in a test split is dropped and counted.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import numbers

REPOSITORY, REVISION = "AGI-Edgerunners/LLM-Adapters", "816657208af4db747803f87ba40a4c71383fed7a"
COLUMNS, MAWPS = ("instruction", "output", "answer"), ("original_text", "equation", "ans")


def _table(columns: tuple[str, ...], path: str, folder: str = "dataset/") -> Table:
    return Table(columns, (Origin("github", REPOSITORY, REVISION, f"{folder}{path}"),), (f"llm_adapters_math/{path}",))


TABLES = {
    "train_steps": _table(COLUMNS, "ft-training_set/math_data.json", ""),
    "train_mawps": _table(MAWPS, "mawps/trainset.json"),
    "test_aqua": _table(COLUMNS, "AQuA/test.json"),
    "test_gsm8k": _table(COLUMNS, "gsm8k/test.json"),
    "test_mawps": _table(MAWPS, "mawps/testset.json"),
    "test_svamp": _table(COLUMNS, "SVAMP/test.json"),
}
SYSTEM = "Solve the problem step by step. End with 'The answer is' and the answer."
TOLERANCE = Fraction(1, 1000)  # LLM-Adapters': the source's answers are floats, as 1.8333333333333335
_LETTER = re.compile(r"answer is:?\s*\(?([A-E])\b|\(([A-E])\)")  # of AQuA: after the mark, or in brackets
_CHOICE = re.compile(r"\(([A-E])\)\s*(.*?)\s*(?=\([A-E]\)|$)", re.DOTALL)


class Options(Section):
    """subsets: which of aqua, gsm8k, mawps, svamp is tested."""

    subsets: tuple[str, ...]


def needed(options: Options) -> set[str]:
    """The tables that are read."""
    return {name for name in TABLES if name.startswith("train") or name.partition("_")[2] in options.subsets}


def question(row: Mapping[str, Any]) -> str:
    return row["instruction"] if "instruction" in row else row["original_text"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for name, rows in tables.items():
        split, _, subset = name.partition("_")
        splits[split] += [_example(f"{subset}-{split}-{number}", subset, row) for number, row in enumerate(rows)]
    return splits


def _example(id: str, subset: str, row: Mapping[str, Any]) -> Example:
    asked = question(row)
    meta: dict[str, Any] = {"question": asked, "subset": subset}
    if "Answer Choices:" in asked:
        options = dict(_CHOICE.findall(asked.partition("Answer Choices:")[2]))
        meta |= {"answer": row["answer"], "choices": options, "labels": list(options)}
        target = f"The answer is ({row['answer']})."
    else:
        answer = str(row["ans"] if "ans" in row else row["answer"]).replace(",", "").removesuffix(".0")
        meta["answer"] = answer
        steps = row["output"].strip().removeprefix("A:").strip() if "output" in row else f"{row['equation']}."
        steps = re.sub(r"\s*The answer is [^.]*(?:\.\d+)?\.?\s*$", "", steps)
        target = f"{steps} The answer is {answer}."
    return Example(
        id=id,
        messages=({"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}),
        target=target,
        meta=meta,
    )


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [_score(example, answer) for example, answer in zip(examples, answers, strict=True)]


def _score(example: Example, answer: str) -> Score:
    if "choices" in example.meta:
        marked, bracketed = next(iter(_LETTER.findall(answer)[-1:]), ("", ""))
        letter = marked or bracketed or None
        right = letter == example.meta["answer"]
        return Score(id=example.id, value=float(right), correct=right, parsed=letter, marked=bool(marked))
    return numbers.score(example.id, answer, example.meta["answer"], asks_for_mark=True, tolerance=TOLERANCE)
