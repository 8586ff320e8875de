"""Programs nobody has read: right ones work; hostile ones do not pass, cost little, leave nothing, raise nothing."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.scoring import code
from pipeline.scoring.code import pool, sandbox
from pipeline.scoring.code.sandbox import LIMITS, RAISED, Outcome, Program, isolation, run
from tests.unit.scoring import modes
from tests.unit.scoring.hostile_answers import LYING, PRETENDING, SEARCHING, WRITTEN, writes
from tests.unit.scoring.hostile_escapes import CLOSED, OLD_DOOR, SEEN
from tests.unit.scoring.hostile_limits import CPU_TIME, FILES, MEMORY, PROCESSES, SLEEP
from tests.unit.scoring.hostile_tricks import INTERPRETER, PROCESS
from tests.unit.scoring.right_programs import ANYWHERE, RIGHT, WITH_A_FOLDER, WITH_PROCESSES

TESTS = [[[1], 11], [[2], 12]]
CALLS = [[1], [2]]
# Programs that must not pass, by what they turn to.
KINDS = {
    "the answer": PRETENDING,
    "its value": LYING,
    "the values expected": SEARCHING,
    "the channel of values": {f"writes {what}": writes(line) for what, line in WRITTEN.items()},
    "the interpreter": INTERPRETER,
    "its process": PROCESS,
    "time": CPU_TIME,
    "sleep": SLEEP,
    "memory": MEMORY,
    "processes": PROCESSES,
    "files": FILES,
}
WRONG = {name: source for programs in KINDS.values() for name, source in programs.items()}
REACHING = SEEN | CLOSED
QUICK = {**LIMITS, "asleep_seconds": 1}
OVERHEAD = 5  # seconds beyond a limit, on a busy machine
walled = pytest.mark.skipif("namespaces" not in isolation(), reason="the kernel gives no namespaces here")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleepers are found out sooner."""
    monkeypatch.setattr(sandbox, "LIMITS", QUICK)


@pytest.fixture
def own_pool() -> Iterator[None]:
    """Workers of this test alone."""
    sandbox._pools.close()
    yield
    sandbox._pools.close()


def outcome(source: str) -> Outcome:
    return run([Program(source, "f", CALLS)])[0]


def correct(sources: list[str]) -> list[bool]:
    answers = [f"```python\n{source}\n```" for source in sources]
    return [score.correct for score in code.score([("x", "f", TESTS)] * len(sources), answers)]


def workers() -> list[pool.Worker]:
    return sandbox._pools.current().workers()


def strays() -> set[str]:
    """Processes of our workers that live on: they carry a worker's command line, its own folder in it."""
    deadline = time.monotonic() + 3  # a keeper needs a moment to end after it has answered
    while (living := _descended()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living


def _descended() -> set[str]:
    folders = {str(worker.folder): str(worker.process.pid) for worker in workers()}
    living = set()
    for entry in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_text().split("\0")  # empty for the dead
            if any(folder in words and entry.name != pid for folder, pid in folders.items()):
                living.add(entry.name)
    return living


def left() -> set[str]:
    """Files that programs might have left: in the workers' folders, and where anybody may write."""
    public = [Path(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run") if Path(folder).is_dir()]
    ours = [path for folder in public for path in folder.glob("selfadapt-left*")]
    return {str(path) for path in [*ours, *(path for worker in workers() for path in worker.folder.iterdir())]}


@contextlib.contextmanager
def filled(reaching: dict[str, str], folder: Path) -> Iterator[dict[str, str]]:
    """Programs that reach out, with something that they might reach."""
    secret = folder / "secret"
    secret.write_text("secret")
    secret.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0selfadapt-test")
        local.listen()
        words = {"PORT": server.getsockname()[1], "SECRET": secret, "HOME": Path.home(), "PARENT": os.getpid()}
        sources = dict(reaching)
        for word, value in words.items():
            sources = {name: source.replace(word, str(value)) for name, source in sources.items()}
        yield sources
    assert secret.read_text() == "secret" and secret.stat().st_mode & 0o777 == 0o666


# ---- right programs ------------------------------------------------------------------------------------------------


@walled
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes(name: str) -> None:
    if name in WITH_PROCESSES and "no processes" in isolation():
        pytest.skip("no processes here")
    assert outcome(RIGHT[name]) == Outcome((11, 12), "end")
    assert correct([RIGHT[name]]) == [True]


def test_values_keep_their_types() -> None:
    source = "def f(x):\n    return [1, 1.5, True, None, 'é', (1, [2]), {3, 4}, {'a': (5,)}]"
    assert outcome(source).values[0] == [1, 1.5, True, None, "é", (1, [2]), {3, 4}, {"a": (5,)}]


def test_sets_of_texts_have_one_order_in_every_worker() -> None:
    source = "def f(x):\n    return list({'apple', 'pear', 'plum', 'fig', 'nut'})"
    outcomes = run([Program(source, "f", [[1]])] * 8)
    assert len({tuple(each.values[0]) for each in outcomes}) == 1


def test_a_call_that_raises_leaves_the_others_their_values() -> None:
    assert outcome("def f(x):\n    return 1 // (x - 1)").values == (RAISED, 1)


def test_code_before_and_after_runs_in_the_same_module() -> None:
    program = Program(
        "from __future__ import annotations\ndef f(x: Nothing):\n    return helper(x)",
        "f",
        CALLS,
        before="def helper(x):\n    return x + 10",
        after="_f = f\ndef f(x):\n    return [_f(x)]",
    )
    assert run([program])[0].values == ([11], [12])


# ---- hostile programs ----------------------------------------------------------------------------------------------


def test_there_are_more_than_a_hundred_hostile_programs() -> None:
    assert len(WRONG) == sum(map(len, KINDS.values()))  # each has a name of its own
    assert min(map(len, KINDS.values())) >= 4 and len(WRONG) > 170 and len(REACHING) > 10


@pytest.mark.parametrize("name", WRONG)
def test_a_hostile_program_does_not_pass_and_leaves_nothing(name: str) -> None:
    before = left()
    start = time.monotonic()
    assert correct([WRONG[name]]) == [False]
    assert time.monotonic() - start < 2 * QUICK["wall_seconds"] + OVERHEAD
    assert not strays()
    assert left() == before
    assert outcome(ANYWHERE["a function"]).values == (11, 12), "the next program must not suffer"


@walled
@pytest.mark.parametrize("name", REACHING)
def test_a_program_reaches_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFADAPT_SECRET", "secret")
    before = left()
    with filled(REACHING, tmp_path) as sources:
        assert outcome(sources[name]) == Outcome(([], []), "end")
    assert left() == before


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a door of x86-64")
def test_a_program_that_calls_as_a_32_bit_one_ends_at_once() -> None:
    assert outcome(OLD_DOOR) == Outcome((), "end")


@pytest.mark.skipif(not modes.possible(), reason="takes root's rights away")
@pytest.mark.parametrize("name", modes.MODES)
def test_walls_hold_in_every_mode(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_pool: None) -> None:
    """Some of the programs that eat time and memory, whose limits are the kernel's in every mode, and all others."""
    slow = CPU_TIME | MEMORY
    some = {name: source for place, (name, source) in enumerate(slow.items()) if place % 4 == 0}
    holds(
        modes.MODES[name],
        {name: source for name, source in WRONG.items() if name not in slow} | some,
        tmp_path,
        monkeypatch,
    )


@pytest.mark.long
@pytest.mark.skipif(not modes.possible(), reason="takes root's rights away")
@pytest.mark.parametrize("name", modes.MODES)
def test_walls_hold_every_program_in_every_mode(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_pool: None
) -> None:
    holds(modes.MODES[name], WRONG, tmp_path, monkeypatch)


def holds(mode: modes.Mode, wrong: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a mode, right programs work, hostile ones do not pass, nothing is reached, and nothing is left."""
    monkeypatch.setattr(pool, "command", lambda folder: modes.command(mode, folder))
    monkeypatch.setenv(sandbox.BARE, "limits")
    hello = sandbox._pools.current().hello()
    assert hello["walls"] == {"kind": mode.kind, "nobody": mode.nobody, "processes": mode.processes}, hello["faults"]
    namespaces = mode.kind != "limits"
    right = ANYWHERE | (WITH_A_FOLDER if namespaces else {}) | (WITH_PROCESSES if mode.processes else {})
    passed = dict(zip(right, correct(list(right.values())), strict=True))
    assert [name for name, good in passed.items() if not good] == []
    before = left()
    start = time.monotonic()
    passed = dict(zip(wrong, correct(list(wrong.values())), strict=True))
    assert [name for name, good in passed.items() if good] == []
    assert time.monotonic() - start < len(wrong) * QUICK["wall_seconds"] / len(os.sched_getaffinity(0)) + OVERHEAD
    reaching = REACHING if namespaces else CLOSED
    with filled(reaching, folder) as sources:
        outcomes = run([Program(source, "f", CALLS) for source in sources.values()])
    assert {name: each for name, each in zip(reaching, outcomes, strict=True) if each.values != ([], [])} == {}
    assert not strays()
    assert left() == before


@pytest.mark.skipif(not modes.possible(), reason="takes root's rights away")
def test_files_are_read_without_namespaces_only_where_there_is_no_landlock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sandbox.BARE, "limits")
    source = "def f(x):\n    return open('/etc/passwd').read(4)"
    for name, mode in modes.MODES.items():
        if mode.kind == "limits":
            monkeypatch.setattr(pool, "command", lambda folder, mode=mode: modes.command(mode, folder))
            sandbox._pools.close()
            assert ("open to be read" in isolation()) is mode.readable, name
            assert (outcome(source).values == ("root", "root")) is mode.readable, name
    sandbox._pools.close()


def test_without_namespaces_nothing_runs_unless_told(monkeypatch: pytest.MonkeyPatch, own_pool: None) -> None:
    outcome(ANYWHERE["a function"])
    monkeypatch.setitem(workers()[0].hello["walls"], "kind", "limits")
    sandbox._pools.current().places[1:] = []
    monkeypatch.setattr(sandbox._pools.current(), "hello", lambda: workers()[0].hello)
    monkeypatch.delenv(sandbox.BARE, raising=False)
    with pytest.raises(UserError, match="set SELFADAPT_SANDBOX=limits"):
        outcome(ANYWHERE["a function"])
    monkeypatch.setenv(sandbox.BARE, "limits")
    assert outcome(ANYWHERE["a function"]).values == (11, 12)


@pytest.mark.skipif(not modes.possible(), reason="takes root's rights away")
def test_without_a_filter_of_system_calls_nothing_runs_at_all(monkeypatch: pytest.MonkeyPatch, own_pool: None) -> None:
    monkeypatch.setattr(pool, "command", lambda folder: modes.command(modes.NO_FILTER, folder))
    monkeypatch.setenv(sandbox.BARE, "limits")
    with pytest.raises(UserError, match="expected walls .*; score on Linux"):
        outcome(ANYWHERE["a function"])
    assert isolation().startswith("none (")


# ---- files ---------------------------------------------------------------------------------------------------------


@walled
def test_files_written_are_gone_and_not_seen_by_the_next_program() -> None:
    write = "import os\nopen('left', 'w').write('x')\nos.mkdir('folder')\ndef f(x):\n    return os.listdir('.')"
    assert sorted(outcome(write).values[0]) == ["folder", "left"]
    assert outcome("import os\ndef f(x):\n    return os.listdir('.') + os.listdir('/dev/shm')").values[0] == []


@walled
def test_the_disk_cannot_be_filled() -> None:
    source = (
        "def f(x):\n"
        "    total = 0\n"
        "    try:\n"
        "        for i in range(100000):\n"
        "            with open(str(i), 'wb') as file: total += file.write(bytes(1 << 19))\n"
        "    except OSError: pass\n"
        "    return total\n"
    )
    assert all(type(value) is int and value <= 8 << 20 for value in outcome(source).values)


def test_writing_a_value_down_is_not_charged_to_the_call() -> None:
    """The call is at once, and its value takes half a second to be written: the limit of a call is shorter."""
    source = """
import time
class Slow(list):
    def __iter__(self):
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        return super().__iter__()
def f(x):
    return Slow([x])
"""
    limits = {**LIMITS, "call_seconds": 0.2, "cpu_seconds": 20}
    assert run([Program(source, "f", CALLS, limits)])[0] == Outcome(([1], [2]), "end")
    late = source.replace("return Slow([x])", "return list(Slow([x]))")
    assert run([Program(late, "f", CALLS, limits)])[0].values == ()
