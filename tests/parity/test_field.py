"""Our scorers and the field's tools on the same answers, imperfect ones among them: at least 99.5 % alike.

Needs a mirror (SELFADAPT_MIRROR) and, as SELFADAPT_PARITY_PYTHON, the Python of an environment of its own with

    pip install evalplus lm_eval math-verify antlr4-python3-runtime==4.11.*

Answers are gold ones, seeded perturbations of them and, where SELFADAPT_PARITY_ANSWERS names a folder of
``<task>.jsonl`` with lines of {"id", "text"} (as ``artifacts/completions`` has them), a model's own. SELFADAPT_PARITY_N
is how many gold answers of each task are perturbed. Every difference is printed (-s) and counted.

Differences from EvalPlus that are known: its ``sanitize`` leaves out a helper without a ``return`` (the generator that
Mbpp/630's own solution calls); its time limits are of wall time and follow the reference's, ours are of CPU time and
the same for all, so that a slow way to the right values may pass here, and fail there on a machine that does more.

Differences from lm-evaluation-harness's MATH that are known: of an answer without a box it takes other expressions than
the last formula; numbers are the same for it that are alike after rounding, and some that algebra finds equal are not.
"""

import importlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifacts import read_jsonl
from pipeline.core.types import Example
from pipeline.data.tables import mirror, read_table
from tests.parity import perturbed

PYTHON = os.environ.get("SELFADAPT_PARITY_PYTHON")
ANSWERS = os.environ.get("SELFADAPT_PARITY_ANSWERS")
COUNT = int(os.environ.get("SELFADAPT_PARITY_N", "600"))
ALIKE = 0.995
HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(mirror() is None, reason="SELFADAPT_MIRROR names no mirror of the benchmarks"),
    pytest.mark.skipif(PYTHON is None, reason="SELFADAPT_PARITY_PYTHON names no environment with the field's tools"),
    pytest.mark.timeout(7200),
]


def module_and_rows(task: str) -> tuple[Any, list[dict[str, Any]], list[Example]]:
    module = importlib.import_module(f"pipeline.tasks.{task}")
    tables = {name: read_table(name, table) for name, table in module.TABLES.items()}
    return module, tables["test"], module.native_splits(tables, module.Options())["test"]


def a_models_own(task: str) -> Mapping[str, str]:
    path = Path(ANSWERS or HERE) / f"{task}.jsonl"
    return {row["id"]: row["text"] for row in read_jsonl(path)} if path.is_file() else {}


def field(script: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts of a script of the other environment."""
    assert PYTHON is not None
    lines = "".join(json.dumps(item) + "\n" for item in items)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(HERE / script)], input=lines, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    verdicts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id"')]
    assert [verdict["id"] for verdict in verdicts] == [item["id"] for item in items]
    return verdicts


def compare(what: str, ours: Sequence[bool], theirs: Sequence[bool], answers: Sequence[str]) -> None:
    differences = [place for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other]
    share = 1 - len(differences) / len(ours)
    print(f"\n{what}: {len(ours)} answers, {sum(ours)} right by us, {sum(theirs)} by them, {share:.2%} alike")
    for place in differences:
        print(f"  differs (ours {ours[place]}): …{answers[place][-160:]!r}")
    assert share >= ALIKE, what
    assert 0.05 < sum(theirs) / len(theirs) < 0.95, "imperfect answers are what is compared"


def extracted(verdict: Mapping[str, str]) -> Fraction | None:
    """The number that the harness extracts: by its strict filter, else by its flexible one."""
    for name in ("strict", "flexible"):
        text = verdict[name].replace(",", "").replace("$", "").rstrip(".")
        try:
            return Fraction(text)
        except ValueError:  # [invalid], or dots and commas alone
            continue
    return None


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_answers_are_read_and_judged_as_by_lm_evaluation_harness(task: str) -> None:
    module, rows, examples = module_and_rows(task)
    gold = {
        example.id: row["answer" if task == "gsm8k" else "solution"]
        for example, row in zip(examples, rows, strict=True)
    }
    step = max(1, len(examples) // COUNT)
    chosen = examples[::step][:COUNT]
    pairs = [
        (example, perturbed.solution(example.target, example.meta["answer"], other.meta["answer"], 0))
        for example, other in zip(chosen, chosen[1:] + chosen[:1], strict=True)
    ]
    by_id = {example.id: example for example in examples}
    pairs += [(by_id[id], text) for id, text in a_models_own(task).items() if id in by_id]
    answers = [answer for _, answer in pairs]
    ours = [score.correct for score in module.score([example for example, _ in pairs], answers)]
    items = [
        {"id": number, "task": task, "gold": gold[example.id], "answer": answer}
        for number, (example, answer) in enumerate(pairs)
    ]
    verdicts = field("field_math.py", items)
    theirs = [verdict["right"] for verdict in verdicts]
    if task == "gsm8k":
        # The harness compares texts, in which 2.00 is not 2; what it extracts is what is compared, as numbers.
        theirs = [
            extracted(verdict) == Fraction(example.meta["answer"])
            for verdict, (example, _) in zip(verdicts, pairs, strict=True)
        ]
        exact = sum(mine == verdict["right"] for mine, verdict in zip(ours, verdicts, strict=True)) / len(ours)
        print(f"\ngsm8k: {exact:.2%} alike if the harness compares texts")
    compare(f"{task} against lm-evaluation-harness", ours, theirs, answers)


@pytest.mark.parametrize(("task", "dataset"), [("humaneval", "humaneval"), ("mbpp_pro", "mbpp")])
def test_programs_are_judged_as_by_evalplus(task: str, dataset: str) -> None:
    module, rows, examples = module_and_rows(task)
    problems = {row["task_id"]: row for row in rows}
    pairs = [
        (example, perturbed.program(example.target.removeprefix("```python\n").removesuffix("\n```"), seed))
        for seed in range(-(-COUNT // len(examples)))
        for example in examples
    ][:COUNT]
    by_id = {example.id: example for example in examples}
    pairs += [(by_id[id], text) for id, text in a_models_own(task).items() if id in by_id]
    answers = [answer for _, answer in pairs]
    # EvalPlus runs what the answer says alone: what the prompt gives is no part of it.
    bare = [
        Example(example.id, example.messages, example.target, {**example.meta, "prelude": ""}) for example, _ in pairs
    ]
    scores = module.score(bare, answers)
    items = [
        {"id": number, "dataset": dataset, "problem": problems[example.id], "answer": answer}
        for number, (example, answer) in enumerate(pairs)
    ]
    verdicts = field("field_code.py", items)
    for kind, ours in (
        ("base", [score.correct for score in scores]),
        ("plus", [bool(score.also["plus"]) for score in scores]),
    ):
        compare(f"{task}, {kind} tests, against EvalPlus", ours, [verdict[kind] for verdict in verdicts], answers)
