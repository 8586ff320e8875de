"""The answers of a published run, scored again from its folder, the code, and a mirror of the benchmarks."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.artifacts import digest, read_examples, read_json
from pipeline.core.config import read_params
from pipeline.core.types import Example
from pipeline.data.tables import MIRROR
from pipeline.data.tasks import task_module
from pipeline.reporting.planned import read_plan
from pipeline.reporting.published import read_answers
from stages import fetch, prepare

SCORED = ["cell", "id", "correct", "parsed", "marked", "finished", "tokens"]


def tables_missing(folder: Path) -> list[str]:
    """The benchmarks among a published run's tasks, if no mirror is there to read them from."""
    if os.environ.get(MIRROR):
        return []
    tasks = {cell.task for cell in read_plan(folder / "plan.yaml").cells.values()}
    return sorted(task for task in tasks if hasattr(task_module(task), "TABLES"))


def examples_of(folder: Path, made: Path) -> dict[str, list[Example]]:
    """The test examples of a published run, by task: made again under ``made``, and the same bytes as they were."""
    params, plan = read_params(folder / "params.yaml"), read_plan(folder / "plan.yaml")
    about = read_json(folder / "run.json")
    fetch.run(settings=fetch.Tasks.read(params, {}), raw=made / "raw")
    found = {}
    for task in sorted({cell.task for cell in plan.cells.values()}):
        data = prepare.TaskData.read(params, {"task": task})
        prepare.run(task=task, data=data, raw=made / "raw", examples=made / task)
        path = made / task / "test.jsonl"
        assert digest(path) == about["data"][task]["test"]["sha256"], f"the test examples of {task} are others now"
        found[task] = read_examples(path)
    return found


def scored_again(folder: Path, made: Path) -> pd.DataFrame:
    """A line for each published answer, with the columns of ``SCORED``, in the order of scores.csv."""
    return pd.DataFrame(_lines(folder, made), columns=SCORED)


def _lines(folder: Path, made: Path) -> Iterator[dict[str, Any]]:
    examples, kept = examples_of(folder, made), read_answers(folder)
    for name, cell in read_plan(folder / "plan.yaml").cells.items():
        asked = examples[cell.task]
        answers = [kept[name][example.id] for example in asked]
        score = importlib.import_module(f"pipeline.tasks.{cell.task}").score
        for answer, judged in zip(answers, score(asked, [answer.text for answer in answers]), strict=True):
            yield {
                "cell": name,
                "id": answer.id,
                "correct": bool(judged.correct),
                "parsed": judged.parsed is not None,
                "marked": getattr(judged, "marked", True),
                "finished": answer.finished,
                "tokens": answer.tokens,
            }
