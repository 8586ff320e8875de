"""Choices are kept on disk in the order in which their prompts mention them: positions are counted from there."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.config import read_params
from pipeline.core.types import Example
from pipeline.data import written
from pipeline.data.tasks import task_module
from stages import prepare

ROOT = Path(__file__).resolve().parents[3]


def example(choices: dict[str, str]) -> Example:
    return Example("x-0", ({"role": "user", "content": "é?"},), "b", {"answer": "b", "choices": choices})


def test_choices_keep_their_order_and_all_other_keys_are_sorted(tmp_path: Path) -> None:
    (row,) = written.rows_of([example({"b": "b", "a": "a"})], "x", "math")
    path = tmp_path / "test.jsonl"
    path.write_text(written.line_of(row), encoding="utf-8")
    (read,) = read_examples(path)
    assert list(read.choices) == ["b", "a"]
    assert list(json.loads(path.read_text())) == ["id", "messages", "meta", "target"]


@pytest.mark.parametrize("choices", [{}, {"A": "red", "B": "blue"}])
def test_where_the_choices_are_sorted_a_line_is_that_of_any_other_file(choices: dict[str, str], tmp_path: Path) -> None:
    rows = written.rows_of([example(choices)], "x", "math")
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == "".join(map(written.line_of, rows))


def tasks_of_laptop() -> list[str]:
    tasks: dict[str, Any] = read_params(ROOT / "pipeline/profiles/laptop.yaml")["tasks"]
    return list(tasks)


@pytest.mark.parametrize("task", tasks_of_laptop())
def test_prepared_examples_have_the_choices_in_the_order_that_the_task_gave_them(task: str, tmp_path: Path) -> None:
    params = {**read_params(ROOT / "pipeline/profiles/laptop.yaml")}
    params["splits"] = {"train": 1, "validation": 1, "test": 30, "few_shot": 1}
    data, module = prepare.TaskData.read(params, {"task": task}), task_module(task)
    drawn = module.examples(data.seed, module.Options.parse(data.options, ""))
    given = {one.id: list(one.choices) for one in itertools.islice(drawn, 400)}
    prepare.run(task=task, data=data, raw=tmp_path, examples=tmp_path / task)
    read = read_examples(tmp_path / task / "test.jsonl")
    assert len(read) == 30 and [list(one.choices) for one in read] == [given[one.id] for one in read]
