"""Records of DVC's, settings to be planned, and rows of one's own that hypothesis has spoilt."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow import forecast, lock, own, plan, repro, server
from tests.fuzz import MANY, as_json, changed, changes, edited, edits, only_a_sentence, values, written

ENTRY = """  {name}:
    cmd: python -m pipeline.flow {name} --model a
    deps:
    - path: data/{name}
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 10
    params:
      params.yaml:
        compute.threads: 1
    outs:
    - path: artifacts/{name}
      hash: md5
      md5: fedcba9876543210fedcba9876543210
      size: 20
"""
RECORD = repro.HEAD + "".join(ENTRY.format(name=name) for name in ("prepare@sums", "generate@sums-base", "report@x"))
RWLOCK = {
    "read": {"a": [{"pid": 99999999, "cmd": "dvc repro"}]},
    "write": {"b": {"pid": 99999999, "cmd": "dvc repro x"}},
}
STATE = {"port": 4301, "report_port": 5301, "pid": 99999999}
TINY = yaml.safe_load(Path("pipeline/profiles/tiny.yaml").read_text(encoding="utf-8"))
ROWS = [{"question": f"{n} + 1 =", "answer": str(n + 1), "choices": ["a", "b"], "other": [n]} for n in range(40)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of no project, the same for every example."""
    monkeypatch.chdir(tmp_path)
    lock.LOCKS.mkdir(parents=True)
    return tmp_path


def record(text: str) -> None:
    """All that is done with DVC's record before a run."""
    for left in Path(".selfadapt").glob("dvc.lock*"):
        left.unlink()
    lock.RECORD.write_bytes(written(text))
    only_a_sentence(forecast.locked_commands, lock.RECORD)
    before = lock.RECORD.read_bytes()
    said = only_a_sentence(lock.mend)
    kept = [path.read_bytes() for path in Path(".selfadapt").glob("dvc.lock.cut-*")] if said else []
    assert before in [*kept, lock.RECORD.read_bytes() if lock.RECORD.exists() else b""]  # nothing is ever lost
    only_a_sentence(lock.keep)
    only_a_sentence(lock.whole, lock.COPY) if lock.COPY.exists() else None


@MANY
@given(made=edits)
def test_any_text_of_dvcs_record(folder: Path, made: list) -> None:
    record(edited(RECORD, made))


@MANY
@given(made=changes)
def test_any_value_in_dvcs_record(folder: Path, made: list) -> None:
    record(as_json(changed(yaml.safe_load(RECORD), made)))


@MANY
@given(made=edits, place=st.integers(0, 3))
def test_an_entry_is_put_into_any_record_or_left_to_dvc(made: list, place: int) -> None:
    entry = ENTRY.format(name=["prepare@sums", "generate@sums-base", "report@x", "new@one"][place])
    text = only_a_sentence(repro.replaced, edited(RECORD, made), entry)
    assert text == "" or entry in text


@MANY
@given(made=changes, spoilt=st.one_of(st.none(), edits))
def test_any_lock_of_dvcs(folder: Path, made: list, spoilt: list | None) -> None:
    text = as_json(changed(RWLOCK, made))
    (lock.LOCKS / "rwlock").write_bytes(written(edited(text, spoilt) if spoilt else text))
    (lock.LOCKS / "lock").write_bytes(written(text[:9]))
    for read in (lock.at_work, lock.owner, lock.clean):
        only_a_sentence(read)
    json.loads((lock.LOCKS / "rwlock").read_bytes())  # whole, for DVC


@MANY
@given(made=changes)
def test_any_word_on_the_server(folder: Path, made: list) -> None:
    server.FOLDER.mkdir(parents=True, exist_ok=True)
    (server.FOLDER / "server.json").write_bytes(written(as_json(changed(STATE, made))))
    for read in (server.report_address, lambda: server._rests(server._state())):
        only_a_sentence(read)


@MANY
@given(made=changes)
def test_any_settings_are_planned_or_refused(made: list) -> None:
    planned = only_a_sentence(plan.expand, changed(TINY, made))
    if planned is not None:
        assert yaml.load(plan.text(planned), yaml.CSafeLoader)["plan"].keys() == planned.keys()


@MANY
@given(
    made=changes,
    spoilt=st.one_of(st.none(), edits),
    given_=st.dictionaries(
        st.sampled_from(["prompt", "answer", "scorer", "options", "pattern"]),
        st.sampled_from(["", "question", "x", "{question"]),
        max_size=2,
    ),
)
def test_any_rows_of_ones_own(folder: Path, made: list, spoilt: list | None, given_: dict[str, Any]) -> None:
    text = "".join(f"{as_json(row)}\n" for row in [*ROWS, changed(ROWS[0], made)])
    Path("mine.jsonl").write_bytes(written(edited(text, spoilt) if spoilt else text))
    found = only_a_sentence(lambda: own.read(Path("mine.jsonl"), name="mine", given=given_))
    assert found is None or isinstance(found.said, str)


@MANY
@given(record=values)
def test_any_record_of_a_stage(folder: Path, record: Any) -> None:
    for value in (record, {"seconds": record}):
        Path("sums.json").write_bytes(written(as_json(value)))
        only_a_sentence(forecast.recorded_seconds, folder)
