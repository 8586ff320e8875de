"""Hostile programs: none passes, none outlives its run, none leaves a file."""

import contextlib
import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from pipeline.scoring import code
from pipeline.scoring.code import sandbox
from pipeline.scoring.code.sandbox import LIMITS, Outcome, Program, isolation, run

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


HOSTILE = {
    "exits with 0 early": "import os\nos._exit(0)\ndef f(x): pass",
    "raises SystemExit in the call": "import sys\ndef f(x):\n    sys.exit(0)",
    "prints that it passed": "print('passed', 'ok', 11, 12)\ndef f(x):\n    print('passed')",
    "returns what equals everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def f(x):\n    return Any(7)"
    ),
    "patches builtins": (
        "import builtins\nbuiltins.type = lambda x: int\nbuiltins.all = lambda x: True\n"
        "builtins.isinstance = lambda *a: True\ndef f(x):\n    return None"
    ),
    "patches json": "import json\njson.dumps = lambda *a, **k: '[\"value\", 11]'\ndef f(x):\n    return 0",
    "writes that it passed to every pipe": (
        'import os\nfor fd in range(64):\n    try: os.write(fd, b\'["passed", true]\\n{"ended": "end"}\\n\')\n'
        "    except OSError: pass\ndef f(x):\n    return 0"
    ),
    "floods memory": "x = 'a' * (1 << 32)\ndef f(x):\n    return 0",
    "floods memory slowly": "x = []\nwhile True: x.append('a' * (1 << 20))\ndef f(x):\n    return 0",
    "recurses for ever": "def f(x):\n    return f(x)",
    "floods its output": "def f(x):\n    return 'a' * 10_000_000",
    "floods stdout": "while True: print('a' * 100_000)\ndef f(x):\n    return 0",
    "loops for ever": "while True: pass\ndef f(x):\n    return 0",
    "loops and ignores signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass\ndef f(x):\n    return 0"
    ),
    "sends nothing but nested brackets": ("import os\nos.write(3, b'[' * 200000 + b'\\n')\ndef f(x):\n    return 0"),
    "crashes the interpreter": "import ctypes\nctypes.string_at(0)\ndef f(x):\n    return 0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_does_not_pass(name: str):
    start = time.monotonic()
    assert not correct(HOSTILE[name])
    assert time.monotonic() - start < LIMITS["wall_seconds"] + 10
    assert correct("def f(x):\n    return x + 10"), "the next program must not suffer"


def test_sleeping_ends_with_the_wall_clock(monkeypatch: pytest.MonkeyPatch):
    pool = sandbox._Pool()
    monkeypatch.setattr(sandbox, "_pool", pool)
    monkeypatch.setitem(LIMITS, "wall_seconds", 1)
    try:
        start = time.monotonic()
        assert one("import time\ntime.sleep(60)\ndef f(x):\n    return x + 10").ended == "time"
        assert time.monotonic() - start < 10
    finally:
        pool.close()


def test_a_fork_bomb_ends_and_leaves_no_process():
    source = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\ndef f(x):\n    return x + 10"
    assert not correct(source)
    assert not strays()


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


@walled
def test_nothing_of_this_machine_is_seen(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.environ["SELFADAPT_SECRET"] = "secret"
    try:
        source = (
            "import os\n"
            "def f(x):\n"
            "    seen = []\n"
            f"    for path in ({str(secret)!r}, {str(Path.home())!r}, '/etc/passwd', '/proc/1/environ', '/dev/null'):\n"
            "        if os.path.exists(path): seen.append(path)\n"
            "    return [sorted(os.listdir('/')), seen, dict(os.environ)]\n"
        )
        assert one(source).values[0] == [["lib", "work"], [], {}]
    finally:
        del os.environ["SELFADAPT_SECRET"]


@walled
def test_the_standard_library_cannot_be_changed():
    source = "def f(x):\n    open('/lib/json/__init__.py', 'a').write('x')"
    assert one(source).values == (sandbox.RAISED, sandbox.RAISED)


@walled
def test_there_is_no_network():
    source = (
        "import socket\n"
        "def f(x):\n"
        "    try:\n"
        "        socket.create_connection(('127.0.0.1', 1), timeout=1)\n"
        "    except OSError as error: return error.errno\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:  # something that would answer, were it reachable
        port = server.getsockname()[1]
        value = one(source.replace("1), timeout", f"{port}), timeout")).values[0]
    assert value in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)


@walled
def test_no_process_of_ours_can_be_signalled():
    parent = os.getpid()
    source = (
        "import os, signal\n"
        "def f(x):\n"
        "    reached = []\n"
        f"    for pid in [os.getppid(), {parent}, *range(2, 3000)]:\n"
        "        try: os.kill(pid, 0); reached.append(pid)\n"
        "        except OSError: pass\n"
        "    return [reached, os.getpid(), os.getppid()]\n"
    )
    assert one(source).values[0] in ([[0], 1, 0], [[], 1, 0])
    os.kill(parent, 0)


@walled
def test_mounts_and_other_users_cannot_be_had():
    source = (
        "import ctypes, os\n"
        "def f(x):\n"
        "    libc = ctypes.CDLL(None)\n"
        "    return [libc.mount(b'none', b'/work', b'tmpfs', 0, None), libc.umount2(b'/lib', 2),\n"
        "            libc.setresuid(0, 0, 0), os.geteuid() == 0, libc.chroot(b'/work')]\n"
    )
    assert one(source).values[0] == [-1, -1, -1, False, -1]


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
