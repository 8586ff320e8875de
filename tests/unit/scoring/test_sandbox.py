"""Hostile programs: none passes, none outlives its run, none leaves a file."""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.scoring import code
from pipeline.scoring.code import sandbox
from pipeline.scoring.code.sandbox import LIMITS, Outcome, Program, isolation, run
from tests.unit.scoring.hostile import HOSTILE, REACHING

TESTS = [[[1], 11], [[2], 12]]
walled = pytest.mark.skipif("namespaces" not in isolation(), reason="the kernel gives no namespaces here")


def one(source: str) -> Outcome:
    return run([Program(source, "f", [arguments for arguments, _ in TESTS])])[0]


def correct(source: str) -> bool:
    return code.score([("x", "f", TESTS)], [f"```python\n{source}\n```"])[0].correct


def strays() -> set[str]:
    """Processes forked from our workers that live on: they carry a worker's command line, its own folder in it."""
    deadline = time.monotonic() + 3  # a keeper needs a moment to end after it has answered
    while (found := _forked()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _forked() -> set[str]:
    workers = {str(worker.folder): str(worker.process.pid) for worker in sandbox._pool.workers}
    found = set()
    for entry in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_text().split("\0")  # empty for the dead
            if any(folder in words and entry.name != pid for folder, pid in workers.items()):
                found.add(entry.name)
    return found


def test_a_right_program_passes_and_its_values_come_back():
    assert one("def f(x):\n    return x + 10") == Outcome((11, 12), "end")
    assert correct("def f(x):\n    return x + 10")


def test_values_keep_their_types():
    source = "def f(x):\n    return [1, 1.5, True, None, 'é', (1, [2]), {3, 4}, {'a': (5,)}]"
    assert one(source).values[0] == [1, 1.5, True, None, "é", (1, [2]), {3, 4}, {"a": (5,)}]


def test_sets_of_texts_have_one_order_in_every_worker():
    source = "def f(x):\n    return list({'apple', 'pear', 'plum', 'fig', 'nut'})"
    assert len({outcome.values for outcome in map(_frozen, run([Program(source, "f", [[1]])] * 8))}) == 1


def _frozen(outcome: Outcome) -> Outcome:
    return Outcome(tuple(map(tuple, outcome.values)), outcome.ended)


def test_a_call_that_raises_leaves_the_others_their_values():
    assert one("def f(x):\n    return 1 // (x - 1)").values == (sandbox.RAISED, 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_does_not_pass(name: str):
    start = time.monotonic()
    assert not correct(HOSTILE[name])
    assert time.monotonic() - start < LIMITS["wall_seconds"] + 10
    assert correct("def f(x):\n    return x + 10"), "the next program must not suffer"


def things_left() -> set[str]:
    """Files of ours outside the workers' own folders, which are made once."""
    return {str(path) for path in Path(tempfile.gettempdir()).glob("selfadapt-program-*")} | {
        str(path) for worker in sandbox._pool.workers for path in worker.folder.iterdir()
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_leaves_neither_process_nor_file(name: str):
    one("def f(x):\n    return x")
    before = things_left()
    one(HOSTILE[name])
    assert not strays()
    assert things_left() == before


@walled
@pytest.mark.parametrize("name", REACHING)
def test_reaches_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setenv("SELFADAPT_SECRET", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0selfadapt-test")
        local.listen()
        words = {"PORT": server.getsockname()[1], "SECRET": secret, "HOME": Path.home(), "PARENT": os.getpid()}
        source = REACHING[name]
        for word, value in words.items():
            source = source.replace(word, str(value))
        assert one(source) == Outcome(([], []), "end")
    assert secret.read_text() == "secret"


def test_there_are_thirty_hostile_programs():
    assert len(HOSTILE) + len(REACHING) >= 30


def test_values_compared_may_be_as_hostile_as_programs():
    assert not code.same(10**400, 1.5)
    assert not code.score([("x", "f", [[[1], 1.5]])], ["def f(x):\n    return 10 ** 400"])[0].correct


def test_twenty_programs_a_second_and_more():
    programs = [Program("def f(x):\n    return x + 10", "f", [[1], [2]])] * 100
    run(programs[:4])
    start = time.monotonic()
    run(programs)
    assert len(programs) / (time.monotonic() - start) > 20


def test_without_namespaces_nothing_runs_unless_told(monkeypatch: pytest.MonkeyPatch):
    one("def f(x):\n    return x")
    monkeypatch.setitem(sandbox._pool.workers[0].hello, "walled", False)
    monkeypatch.delenv(sandbox.BARE, raising=False)
    with pytest.raises(UserError, match="set SELFADAPT_SANDBOX=limits"):
        one("def f(x):\n    return x")
    monkeypatch.setenv(sandbox.BARE, "limits")
    assert one("def f(x):\n    return x").values == (1, 2)


def test_sleeping_ends_with_the_wall_clock(monkeypatch: pytest.MonkeyPatch):
    pool = sandbox._Pool()
    monkeypatch.setattr(sandbox, "_pool", pool)
    monkeypatch.setattr(sandbox, "LIMITS", {**LIMITS, "wall_seconds": 1})
    try:
        start = time.monotonic()
        assert one("import time\ntime.sleep(60)\ndef f(x):\n    return x + 10").ended == "time"
        assert time.monotonic() - start < 10
    finally:
        pool.close()


def test_a_daemon_does_not_outlive_its_program():
    source = (
        "import os, signal, time\n"
        "def f(x):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "            time.sleep(60)\n"
        "        os._exit(0)\n"
        "    return x\n"
    )
    one(source)
    assert not strays()


def test_files_written_are_gone_and_not_seen_by_the_next_program(tmp_path: Path):
    write = "import os\nopen('left', 'w').write('x')\nos.symlink('/etc', 'link')\ndef f(x):\n    return os.listdir('.')"
    assert sorted(one(write).values[0]) == ["left", "link"]
    assert one("import os\ndef f(x):\n    return os.listdir('.')").values[0] == []


def test_the_disk_cannot_be_filled():
    source = (
        "def f(x):\n"
        "    total = 0\n"
        "    try:\n"
        "        for i in range(100000):\n"
        "            with open(str(i), 'wb') as file: total += file.write(bytes(1 << 19))\n"
        "    except OSError: pass\n"
        "    return total\n"
    )
    assert all(type(value) is int and value <= 8 << 20 for value in one(source).values)


def test_a_worker_that_dies_is_replaced_and_its_program_tried_again():
    run([Program("def f(x):\n    return x", "f", [[1]])])
    for worker in list(sandbox._pool.workers):
        os.kill(worker.process.pid, signal.SIGKILL)
    outcomes = run([Program("def f(x):\n    return x", "f", [[1]])] * 10)
    assert all(outcome.values == (1,) for outcome in outcomes)


def test_without_namespaces_strays_are_still_hunted_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The lesser isolation, forced by a worker that cannot build its walls."""
    source = Path(sandbox.__file__).with_name("worker.py").read_text()
    head = "def _build_walls(folder):"
    assert head in source
    (tmp_path / "worker.py").write_text(source.replace(head, f"{head}\n    raise OSError('no')"))
    shutil.copy(Path(sandbox.__file__).with_name("values.py"), tmp_path)
    monkeypatch.setenv(sandbox.BARE, "limits")
    (tmp_path / "sandbox.py").touch()
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
    pool = sandbox._Pool()
    monkeypatch.setattr(sandbox, "_pool", pool)
    try:
        assert "open to programs" in isolation()
        test_a_right_program_passes_and_its_values_come_back()
        before = set(Path("/tmp").glob("selfadapt-program-*"))
        test_a_daemon_does_not_outlive_its_program()
        test_files_written_are_gone_and_not_seen_by_the_next_program(tmp_path)
        assert not correct(HOSTILE["loops for ever"])
        assert not correct(HOSTILE["exits with 0 early"])
        assert set(Path("/tmp").glob("selfadapt-program-*")) == before
    finally:
        pool.close()
