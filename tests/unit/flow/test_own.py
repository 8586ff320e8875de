"""A file of rows as settings: what its columns seem to be, and the task and the table it becomes."""

import json
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.core.reading import yaml_of
from pipeline.flow import own, profiles
from pipeline.flow.plan import expand
from pipeline.flow.stages import problems
from tests.graph.code import ROOT

TINY = profiles.text("tiny")


def file_of(folder: Path, row: dict, count: int = 100, name: str = "My rows-2") -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({**row, "number": number}) + "\n" for number in range(count)), encoding="utf-8")
    return path


SEEN = {
    "numbers": (
        {"question": "q", "answer": "1,250.5"},
        {"prompt": "question", "answer": "answer", "scorer": "numbers"},
    ),
    "texts": ({"Instruction": "q", "output": "a"}, {"prompt": "Instruction", "answer": "output", "scorer": "exact"}),
    "choices": (
        {"question": "q", "options": ["a", "b"], "answer": "a"},
        {"prompt": "question", "answer": "answer", "scorer": "choices", "options": "options"},
    ),
    "code": (
        {"prompt": "q", "solution": "s", "function": "f", "tests": []},
        {"prompt": "prompt", "answer": "solution", "scorer": "code"},
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_columns_are_known_by_their_names(case: str, tmp_path: Path) -> None:
    row, expected = SEEN[case]
    path = file_of(tmp_path, row)
    found = own.read(path, name=own.named(path, None), given={})
    assert found.name == "my_rows_2"
    assert found.rows == {"path": str(path), **expected}
    assert found.sizes == {"train": "rest", "validation": 20, "test": 25, "few_shot": 5}


def test_what_the_owner_says_counts(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"question": "q", "answer": "1", "other": "word"})
    found = own.read(path, name="mine", given={"answer": "other", "pattern": r"\w+", "worked": 2, "system": ""})
    assert (found.rows["answer"], found.rows["scorer"], found.rows["worked"]) == ("other", "pattern", 2)


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 40 rows in .*, got 3"):
        own.read(file_of(tmp_path, {"question": "q", "answer": "a"}, 3), name="mine", given={})
    with pytest.raises(UserError, match="a column for the answer in every row of .*, got question, number; name it by"):
        own.read(file_of(tmp_path, {"question": "q"}), name="mine", given={})
    with pytest.raises(UserError, match="which is not there; correct its name"):
        own.read(tmp_path / "none.jsonl", name="mine", given={})
    with pytest.raises(UserError, match="a name of small letters"):
        own.named(tmp_path / "1.jsonl", None)


def test_rows_become_a_task_and_a_table_and_comments_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = file_of(tmp_path, {"question": "q", "answer": "1"}, name="rows")
    rows = own.read(path, name="mine", given={"worked": 2})
    text = own.added(TINY, rows, methods=["svf", "lora"], seed=None)
    assert text.startswith(TINY[: TINY.index("tasks:")])
    assert own.added(text, rows, methods=["svf", "lora"], seed=None) == text, "a second time changes nothing"
    plan = expand(yaml_of(text, "params.yaml"))
    before = expand(yaml_of(TINY, "params.yaml"))
    assert plan["prepare_own"] == {"mine": {"rows": str(path)}}
    assert set(plan["cells"]) - set(before["cells"]) == {"mine-base", "mine-svf-0", "mine-lora-0"}
    assert set(plan["train_svf"]) - set(before["train_svf"]) == {"mine-0"}
    assert plan["dispatch"] == before["dispatch"], "rows of one's own join no mixture"
    changed = tmp_path / "params.yaml"
    changed.write_text(text, encoding="utf-8")
    assert problems(changed) == []


def test_a_taken_name_and_an_unknown_method_are_refused(tmp_path: Path) -> None:
    rows = own.read(file_of(tmp_path, {"question": "q", "answer": "1"}), name="sums", given={})
    with pytest.raises(UserError, match="expected a new name for rows of your own, got 'sums', a task"):
        own.added(TINY, rows, methods=["svf"], seed=None)
    with pytest.raises(
        UserError, match="expected a row of params.yaml that is trained on one task, got 'loar'; rows are: svf, "
    ):
        own.added(TINY, rows, methods=["loar"], seed=None)
    for joint in ("csreft", "few_shot", "lora_3_steps_1"):
        with pytest.raises(UserError, match="that is trained on one task"):
            own.added(TINY, rows, methods=[joint], seed=None)


def test_a_path_that_no_command_line_takes_is_refused(tmp_path: Path) -> None:
    rows = own.read(file_of(tmp_path, {"question": "q", "answer": "1"}), name="mine", given={})
    text = own.added(TINY, rows, methods=["svf"], seed=None)
    with pytest.raises(
        UserError, match=r"letters, digits and ./\+@_- in the path of the rows of 'mine', got .*My rows-2"
    ):
        expand(yaml_of(text, "params.yaml"))


def test_a_setting_may_be_new_where_something_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)

    def wrong(*changes: str) -> list[str]:
        path = tmp_path / "params.yaml"
        path.write_text(profiles.changed(TINY, list(changes)), encoding="utf-8")
        return problems(path, profiles.added(yaml_of(TINY, "params.yaml"), list(changes)))

    assert wrong("tables.table1.seeds=[0, 1]", "lora.sweep={learning_rates: [1.0e-3], clips: [1.0]}") == []
    assert wrong("seeds=[0, 1]") == []
    assert ".stpes' is not a known setting; did you mean 'steps'?" in wrong("reinforce.stpes=3")[0]
    assert "'lora.swep' is not there, and no stage reads it" in wrong("lora.swep={}")[0]
    with pytest.raises(UserError, match="'tables.table1.sedes' is not a known setting; did you mean 'seeds'"):
        expand(yaml_of(profiles.changed(TINY, ["tables.table1.sedes=[0]"]), "params.yaml"))
