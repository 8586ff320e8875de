"""The graph by its entries."""

from pipeline.flow import groups
from pipeline.flow.groups import Entry
from pipeline.flow.stages import RUNNER, Stage


def stage(name: str, deps: str, out: str) -> Stage:
    return Stage(name, (*RUNNER, name), frozenset(deps.split()), frozenset([out]), frozenset())


STAGES = [
    stage("code", "pipeline", "artifacts/code"),
    stage("prepare@a", "artifacts/code/stages/prepare", "data/a"),
    stage("prepare@b", "artifacts/code/stages/prepare", "data/b"),
    stage("train@a", "data/a/train.jsonl", "experts/a"),  # a file in an output
    stage("score@a", "data/a/test.jsonl experts/a", "scores/a"),
    stage("report", "scores data", "report"),  # folders of outputs
]


def test_stages_read_of_those_that_write_a_file_or_folder_of_theirs() -> None:
    needs = groups.edges(STAGES)
    assert needs["train@a"] == ["prepare@a"]
    assert needs["score@a"] == ["prepare@a", "train@a"]
    assert needs["report"] == ["prepare@a", "prepare@b", "score@a"]
    assert needs["prepare@a"] == []  # what everything waits for is left out


def test_entries_come_after_those_they_need_and_name_the_nearest() -> None:
    found = groups.entries(STAGES)
    assert found == [
        Entry("prepare", 2, (), ()),
        Entry("train", 1, ("prepare",), ("prepare",)),
        Entry("score", 1, ("prepare", "train"), ("train",)),
        Entry("report", 1, ("prepare", "score"), ("score",)),
    ]
    assert groups.listed(found) == [
        "prepare × 2",
        "train        ← prepare",
        "score        ← train",
        "report       ← score",
    ]
    assert groups.mermaid(found).splitlines()[:4] == [
        "flowchart LR",
        '  prepare["prepare × 2"]',
        '  train["train"]',
        "  prepare --> train",
    ]


def test_one_stage_is_shown_between_what_it_reads_and_what_reads_of_it() -> None:
    assert groups.around("train@a", groups.edges(STAGES)) == ["← prepare@a", "train@a", "→ score@a"]
