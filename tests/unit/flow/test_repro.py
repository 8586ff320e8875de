"""DVC's record, written an entry at a time: to the byte as DVC writes it."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.dvcfile import Lockfile
from dvc.repo import Repo

from pipeline.flow import repro

NAMES = ["a", "fit", "score@a", "score@a-0", "score@a b", "'quoted'", "1", "on", "ü@ä", "score"]


def an_entry(draw: random.Random) -> dict[str, object]:
    """What a stage may be recorded with: long and multi-line commands, numbers as texts, nested settings."""
    entry: dict[str, object] = {"cmd": " ".join(draw.choices(["python", "--tasks", "'a: b'", "#", "ü", "x" * 90], k=9))}
    if draw.random() < 0.7:
        hashes = draw.choices(["1e5", "0123", "d41d"], k=draw.randrange(1, 4))
        entry["deps"] = [{"path": f"p{draw.randrange(9)}", "hash": "md5", "md5": md5, "size": 3} for md5 in hashes]
    if draw.random() < 0.7:
        shared = {"k": {"l": []}}
        values = [None, "yes", "", "a\nb\n", 1e-5, 2.0, [1, [2, "x: y"]], shared, {}, " pad ", "stages:\n  a:\n"]
        entry["params"] = {"params.yaml": {f"s.{n}": draw.choice(values) for n in range(draw.randrange(1, 5))}}
    return entry


@pytest.fixture
def lockfile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Repo.init(no_scm=True) as repo:
        yield Lockfile(repo, "dvc.lock")


@pytest.mark.parametrize("seed", range(20))
def test_the_record_is_as_dvc_writes_it(lockfile, monkeypatch, seed):
    monkeypatch.setattr("dvc.stage.serialize.to_lockfile", lambda stage, **_: {stage.name: stage.entry})
    draw, path = random.Random(seed), Path("dvc.lock")
    for _ in range(12):
        stage = SimpleNamespace(name=draw.choice(NAMES), entry=an_entry(draw))
        before = path.read_text() if path.exists() else None
        taken = repro._dump(lockfile, [stage])
        ours = path.read_text() if path.exists() else None
        path.write_text(before) if before is not None else path.unlink(missing_ok=True)
        lockfile.dump_stages([stage])
        whole = path.read_text()
        # What is there twice is a reference in YAML, and its name one for the whole file.
        assert taken == (before is not None and "&id" not in before + whole)
        assert not taken or ours == whole


@pytest.mark.parametrize(
    "record",
    [
        "",
        "stages:\n  a:\n    cmd: x\n",
        f"{repro.HEAD}  a:\n    cmd: x",
        f"{repro.HEAD}  a:\n    cmd: x\ndatasets:\n- n: 1\n",
    ],
)
def test_a_record_of_another_form_is_left_to_dvc(record):
    assert repro.replaced(record, "  a:\n    cmd: y\n") == ""


def test_a_stage_run_by_it_is_recorded(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages:\n" + "".join(f"  {n}: {{cmd: touch {n}, outs: [{n}]}}\n" for n in "abc"))
    with Repo.init(no_scm=True) as repo:
        repo.reproduce()
    whole = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(whole.replace("cmd: touch b", "cmd: touch c"))
    monkeypatch.setattr(Lockfile, "dump_stages", Lockfile.dump_stages)  # undone after the test
    assert repro.run_dvc(["repro", "--single-item", "b"]) == 0
    assert Path("dvc.lock").read_text() == whole
