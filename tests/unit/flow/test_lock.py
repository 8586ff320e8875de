"""DVC's locks, waited for; and its record, put right after a kill and never taken from a living process."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dvc.lock
import pytest
from dvc.repo import Repo

from pipeline.core.errors import UserError
from pipeline.flow import lock
from pipeline.flow.run import read_graph

RECORD = """schema: '2.0'
stages:
  one:
    cmd: python one
    outs:
    - path: a
      hash: md5
      md5: 0cc175b9c0f1b6a831c399e269772661
      size: 1
"""
LONGER = RECORD + RECORD.split("stages:\n")[1].replace("one", "two")
CUT = LONGER[: LONGER.rindex(": a")]
CONFLICT = """schema: '2.0'
stages:
  one:
    cmd: python one
<<<<<<< HEAD
    outs: []
=======
    outs: [{path: b, md5: '0'}]
>>>>>>> other
"""
GRAPH = "stages:\n  one: {cmd: 'true', deps: [zero], outs: [a]}\n"
HOLD = """
import sys
from pathlib import Path
from zc.lockfile import LockFile
held = LockFile(".dvc/tmp/lock")
print("held", flush=True)
sys.stdin.read()
if sys.argv[1:]:
    Path("dvc.lock").write_text(sys.argv[1])
"""
SLEEP = "import time; print('there', flush=True); time.sleep(60)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that is no project yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(folder, monkeypatch):
    """A project of DVC's with one stage, where DVC gives up a lock after 0.3 s instead of 3."""
    monkeypatch.setattr(dvc.lock, "DEFAULT_TIMEOUT", 0.3)
    monkeypatch.setattr(lock, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_is_ours", lambda pid: pid == os.getpid())  # the tests' other processes count as foreign
    Repo.init(no_scm=True).close()
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "zero").touch()
    return folder


@contextlib.contextmanager
def process(code: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has said its first word, and is killed in the end."""
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        started.stdout.readline()
        try:
            yield started
        finally:
            started.kill()


def at_work(pid: int, command: str) -> None:
    """Have ``rwlock`` say that a process is writing ``a``."""
    entry = {"pid": pid, "cmd": command}
    (lock.LOCKS / "rwlock").write_text(json.dumps({"write": {str(Path("a").resolve()): entry}, "read": {}}))


def once_waited_for(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something when somebody has waited, and said for whom."""
    spend = lock.Patience.spend

    def spend_and_act(patience: lock.Patience, seconds: float) -> bool:
        going_on = spend(patience, seconds)
        act()
        return going_on

    monkeypatch.setattr(lock.Patience, "spend", spend_and_act)


# ---- the record --------------------------------------------------------------------------------------------------


def test_what_dvc_can_read_is_left_alone(folder):
    assert lock.mend() is None
    lock.RECORD.write_text(RECORD)
    assert lock.mend() is None
    assert lock.RECORD.read_text() == RECORD


@pytest.mark.parametrize("last", ["  two:", "    outs:\n    - path", "schema: '2"])
def test_a_record_that_was_cut_off_becomes_the_last_one_that_was_whole(folder, last):
    lock.RECORD.write_text(RECORD)
    lock.keep()
    cut = LONGER[: LONGER.rindex(last) + len(last)]
    lock.RECORD.write_text(cut)
    said = lock.mend()
    assert lock.RECORD.read_text() == RECORD
    assert said is not None and "cut off" in said
    (aside,) = Path(".selfadapt").glob("dvc.lock.cut-*")
    assert aside.read_text() == cut


@pytest.mark.parametrize("last", ["  two:\n    cmd: pyt", "      md5: 0cc1"])
def test_what_is_a_record_for_dvc_although_it_was_cut_off_is_left_to_it(folder, last):
    lock.RECORD.write_text(RECORD)
    lock.keep()
    cut = LONGER[: LONGER.rindex(last) + len(last)]
    lock.RECORD.write_text(cut)
    assert lock.mend() is None
    assert lock.RECORD.read_text() == cut


def test_the_copy_follows_what_dvc_writes(folder):
    lock.RECORD.write_text(RECORD)
    lock.keep()
    lock.RECORD.write_text(LONGER)
    os.utime(lock.RECORD, ns=(1, 1))
    lock.keep()
    lock.RECORD.write_text("stages: [")
    assert lock.mend() is not None
    assert lock.RECORD.read_text() == LONGER


def test_without_a_copy_the_cut_record_is_kept_aside(folder):
    lock.RECORD.write_text("schema: '2.0'\nstages:\n  one:\n    cmd: [")
    said = lock.mend()
    assert said is not None and "no copy" in said
    assert not lock.RECORD.exists()
    (aside,) = Path(".selfadapt").glob("dvc.lock.cut-*")
    assert aside.read_text().endswith("cmd: [")


def test_a_conflict_is_left_to_a_person_who_is_told_the_commands(folder, capsys):
    lock.RECORD.write_text(RECORD)
    lock.keep()
    lock.RECORD.write_text(CONFLICT)
    with pytest.raises(UserError, match=r"git checkout --ours dvc\.lock.*--theirs dvc\.lock.*dvc repro"):
        lock.mend()
    assert lock.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("error: expected a record") and said.count("\n") == 1
    assert lock.RECORD.read_text() == CONFLICT


def test_a_record_that_a_living_process_is_writing_is_waited_for(project, monkeypatch, capsys):
    lock.RECORD.write_text(RECORD)
    lock.keep()
    lock.RECORD.write_text(CUT)
    with process(HOLD, LONGER) as writer:
        once_waited_for(monkeypatch, writer.stdin.close)
        assert lock.mend() is None
    assert lock.RECORD.read_text() == LONGER
    assert capsys.readouterr().err.startswith(f"note: waiting for process {writer.pid} ({sys.executable} -c import sys")


def test_a_record_that_a_killed_process_was_writing_is_mended(project):
    lock.RECORD.write_text(RECORD)
    with process(HOLD) as writer:
        pass
    assert int((lock.LOCKS / "lock").read_text()) == writer.pid
    lock.keep()
    lock.RECORD.write_text(CUT)
    assert lock.mend() is not None
    assert lock.RECORD.read_text() == RECORD


def test_what_dvc_may_be_writing_is_not_copied(project):
    lock.RECORD.write_text(RECORD)
    lock.keep()
    with process(HOLD):
        lock.RECORD.write_text(CUT)
        lock.keep()
        assert lock.COPY.read_text() == RECORD


# ---- the locks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lock", "rwlock"])
def test_the_graph_is_read_once_another_process_has_let_go_of_it(project, monkeypatch, capsys, kind):
    with process(HOLD) if kind == "lock" else process(SLEEP, "repro", "one") as holder:
        if kind == "rwlock":
            at_work(holder.pid, "dvc repro one")
        once_waited_for(monkeypatch, lambda: (holder.kill(), holder.wait()))
        assert read_graph([]).changed == {"one"}
    assert f"note: waiting for process {holder.pid} (" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lock", "rwlock"])
def test_waiting_ends_with_a_sentence_that_names_the_process(project, monkeypatch, kind):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.5)
    with process(HOLD) if kind == "lock" else process(SLEEP, "repro", "one") as holder:
        if kind == "rwlock":
            at_work(holder.pid, "dvc repro one")
        with pytest.raises(UserError, match=rf"DVC's lock.*process {holder.pid} \(.*still holds it; wait until"):
            read_graph([])


def test_a_holder_that_is_not_known_is_another_dvc_process(project):
    with process(HOLD):
        (lock.LOCKS / "lock").write_text("")
        assert str(lock.owner()) == "another DVC process"


def test_nobody_holds_a_lock_that_is_free(project):
    assert lock.owner() is None
    assert lock.at_work() == []


def test_a_process_at_work_is_left_in_the_list(project):
    with process(SLEEP, "repro", "one") as other:
        at_work(other.pid, "dvc repro one")
        lock.clean()
        assert [(holder.pid, holder.command) for holder in lock.at_work()] == [(other.pid, "dvc repro one")]


def test_a_killed_process_whose_number_another_program_has_holds_up_nobody(project):
    with process(SLEEP, "something", "else") as other:
        at_work(other.pid, "dvc repro one")
        assert lock.at_work() == []
        assert lock.mend() is None
        assert json.loads((lock.LOCKS / "rwlock").read_text()) == {"read": {}, "write": {}}
        assert read_graph([]).changed == {"one"}


@pytest.mark.parametrize("left", ["", '{"write": {"a": {"pid"', "[]"])
def test_half_a_list_of_processes_at_work_holds_up_nobody(project, left):
    (lock.LOCKS / "rwlock").write_text(left)
    assert lock.mend() is None
    assert read_graph([]).changed == {"one"}
