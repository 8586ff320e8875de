"""Code, unseen: HumanEval (arXiv 2107.03374) with EvalPlus's further tests (HumanEval+). 164 to test, none to train on.

The model completes a function from its signature and docstring; the answer is the whole function. The imports and
helpers before it in the prompt run before the answer, too. Base tests are HumanEval's, ``plus`` are EvalPlus's.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring.code import differential
from pipeline.scoring.code.values import plain

TABLES = {
    "test": Table(
        columns=("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol"),
        origins=(
            Origin(
                "github",
                "evalplus/humanevalplus_release",
                "200defce9e3429d28ca215b6dd061c0f7f31c18b",
                "HumanEvalPlus.jsonl.gz",
                "272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
            ),
        ),
        mirror=("humaneval_plus/HumanEvalPlus.jsonl.gz",),
    )
}
ASKED = "Complete this function. Answer with the whole function as a block of Python code.\n```python\n{prompt}```"
ORACLES = {"find_zero": "root"}  # any root of the polynomial


class Options(Section):
    """No options."""


def question(row: Mapping[str, Any]) -> str:
    return row["prompt"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    rows = tables["test"]
    sources = [row["prompt"] + row["canonical_solution"] for row in rows]
    tests = differential.with_references(list(zip(sources, map(_tests, rows), strict=True)))
    return {
        "train": [],
        "test": [
            Example(
                id=row["task_id"],
                messages=({"role": "user", "content": ASKED.format(prompt=row["prompt"])},),
                target=f"```python\n{source.strip()}\n```",
                meta={"question": row["prompt"], **test},
            )
            for row, source, test in zip(rows, sources, tests, strict=True)
        ],
    }


def _tests(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "function": row["entry_point"],
        "prelude": _prelude(row["prompt"], row["entry_point"]),
        "base": [plain(arguments) for arguments in row["base_input"]],
        "plus": [plain(arguments) for arguments in row["plus_input"]],
        "atol": row["atol"],
        "oracle": ORACLES.get(row["entry_point"], ""),
        "seconds": 4,
    }


def _prelude(prompt: str, function: str) -> str:
    """What a prompt's code has besides the function."""
    parts = ast.parse(f"{prompt}\n    pass").body
    return "\n".join(ast.unparse(part) for part in parts if getattr(part, "name", None) != function)


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return differential.score([example.meta for example in examples], answers, [example.id for example in examples])
