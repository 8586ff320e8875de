"""What a run would make, and how long that takes."""

import math
import time
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.flow.forecast import Kind, Waiting, counted, kinds, locked_commands, recorded_seconds, summed
from pipeline.flow.stages import RUNNER, Stage

GRAPH = "stages:\n  train:\n    foreach: x\n  report:\n    cmd: y\n  never:\n    cmd: z\n"


def stage(name: str, *words: str) -> Stage:
    return Stage(name, (*RUNNER, name, *words), frozenset(), frozenset(), frozenset())


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    return tmp_path / "dvc.yaml"


def test_stages_are_counted_in_the_order_of_the_graph_and_new_ones_told(graph: Path) -> None:
    stages = [stage("report"), stage("train@a"), stage("train@b", "--rate", "2"), stage("train@c")]
    commands = {"train@a": " ".join(stage("train@a").command), "train@b": "python -m pipeline.flow train@b --rate 1"}
    seconds = {"train@a": 10.0, "train@b": 30.0}
    assert kinds(stages, graph, commands=commands, seconds=seconds) == [
        Kind("train", 3, 2, 60.0),  # of c there is no record: it takes as long as the others do on the mean
        Kind("report", 1, 1, None),
    ]


def test_the_lines_say_numbers_and_what_is_not_known() -> None:
    lines = counted([Kind("train", 3, 0, 60.0), Kind("report", 1, 1, None)], {"train": (1200, None)})
    assert [line.split() for line in lines[1:]] == [
        ["train", "3", "1,200", "all", "60", "s"],
        ["report", "1", "1", "?"],
    ]
    said = summed([Kind("train", 3, 0, 600.0), Kind("report", 1, 1, None)], jobs=2)
    assert said == (
        "4 stages, 1 of them new against the last run; all of them about 10 min, 2 side by side about 5 min "
        "(no record yet of report)"
    )
    assert summed([Kind("report", 1, 1, None)], jobs=2).endswith("no record yet of how long they take")


def test_commands_and_seconds_of_earlier_runs_are_read(tmp_path: Path) -> None:
    assert locked_commands(tmp_path / "dvc.lock") == {}
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  a:\n    cmd: one  two\n")
    assert locked_commands(tmp_path / "dvc.lock") == {"a": "one two"}
    (tmp_path / "a.json").write_text('{"seconds": 3.5}')
    assert recorded_seconds(tmp_path) == {"a": 3.5}


@pytest.mark.parametrize("text", ["stages: [", "a", "stages: {a: 3}", "<<<<<<< ours\n"])
def test_a_lock_file_of_another_form_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(UserError, match="expected DVC's lock file in"):
        locked_commands(tmp_path / "dvc.lock")


def test_what_a_stage_says_of_itself_counts_where_it_is_more_than_its_record() -> None:
    waiting = Waiting.of({"train@a": [], "train@b": []}, ["train@a", "train@b"], {"train@a": 10.0, "train@b": 10.0}, 2)
    begun = {"train@a": time.monotonic() - 60, "train@b": time.monotonic()}
    assert waiting.said(begun) == "0 of 2 stages, about 10 s left"
    assert waiting.said(begun, {"train@a": 50.0}) == "0 of 2 stages, about 50 s left"
    waiting.seconds["train@a"] = math.nan  # no record of it
    assert waiting.said(begun) == "0 of 2 stages"
    assert waiting.said(begun, {"train@a": 40.0}) == "0 of 2 stages, about 40 s left"
