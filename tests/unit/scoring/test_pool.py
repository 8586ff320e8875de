"""The workers that programs run in: what comes back from them, what becomes of them, and how long all of it takes."""

import os
import random
import signal
import string
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.scoring.code import keeper, pool, sandbox
from pipeline.scoring.code.sandbox import LIMITS, Outcome, Program, run

RIGHT = "def f(x):\n    return x + 10"
CALLS = [[1], [2]]
OVERHEAD = 5  # seconds beyond a limit, on a busy machine


@pytest.fixture
def own_pool() -> Iterator[None]:
    """Workers of this test alone."""
    sandbox._pools.close()
    yield
    sandbox._pools.close()


def outcome(source: str) -> Outcome:
    return run([Program(source, "f", CALLS)])[0]


def workers() -> list[pool.Worker]:
    return sandbox._pools.current().workers()


# ---- what comes back -----------------------------------------------------------------------------------------------


def test_whatever_is_written_to_the_channel_is_read_without_an_error() -> None:
    draw = random.Random(0)
    words = [
        '"value"',
        '"raised"',
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "1",
        "-1e999",
        "NaN",
        "null",
        "true",
        '"\\ud800"',
        '"',
    ]
    words += [f'"{kind}"' for kind in ("list", "tuple", "set", "dict", "int", "float", "complex", "bytes", "digest")]
    for _ in range(3000):
        line = "".join(draw.choice(words) for _ in range(draw.randrange(1, 12)))
        values = sandbox._values(f'["value", [{line}]]\n["value", {line}]\n{line}\n'.encode(), 3, 1)
        assert len(values) <= 3
    for _ in range(1000):
        sandbox._values(bytes(draw.choices(range(256), k=50)) + draw.choice(string.printable).encode(), 2, 1)


def test_reading_ends_with_the_time_that_the_program_had() -> None:
    line = b'["value", ["set"' + b"".join(b", %d" % (number * (2**61 - 1)) for number in range(1, 2500)) + b"]]\n"
    start = time.monotonic()
    sandbox._values(line * 200, 200, 1)
    assert time.monotonic() - start < 5


NONSENSE = {
    "nothing": b"",
    "a length without end": b"\xff\xff\xff\xff",
    "no JSON": b"\0\0\0\1x",
    "JSON of another form": b"\0\0\0\2[]",
    "an object without a size": b"\0\0\0\2{}",
    "a size that is a text": b'\0\0\0\x0d{"size": "1"}',
    "an output without end": b'\0\0\0\x13{"size": 9999999999}',
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_a_worker_that_answers_nonsense_loses_its_life_and_no_place(
    answer: bytes, own_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(RIGHT)
    for worker in workers():
        monkeypatch.setattr(worker, "_reading", _Says(answer))
    outcomes = run([Program(RIGHT, "f", CALLS)] * 4)
    assert [each.values for each in outcomes] == [(11, 12)] * 4


class _Says:
    """A pipe from which some bytes come, and then no more."""

    def __init__(self, answer: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, answer)
        os.close(writing)
        self._file = os.fdopen(reading, "rb", buffering=0)
        self.fileno, self.read, self.close = self._file.fileno, self._file.read, self._file.close


def test_a_worker_that_dies_is_replaced_and_its_program_tried_again() -> None:
    outcome(RIGHT)
    for worker in workers():
        os.kill(worker.process.pid, signal.SIGKILL)
    outcomes = run([Program("def f(x):\n    return x", "f", [[1]])] * 10)
    assert all(each.values == (1,) for each in outcomes)


def test_a_worker_that_stops_answering_is_replaced(own_pool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0)
    monkeypatch.setattr(sandbox, "LIMITS", {**LIMITS, "wall_seconds": 6})
    outcome(RIGHT)
    stopped = workers()
    for worker in stopped:
        os.kill(worker.process.pid, signal.SIGSTOP)
    long = Program(RIGHT + "\n#" + "x" * 1_000_000, "f", CALLS)  # more than a pipe holds
    outcomes = run([long, *[Program(RIGHT, "f", CALLS)] * 8])
    assert [each.values for each in outcomes] == [(11, 12)] * 9
    assert all(worker.process.poll() is not None for worker in stopped)


def test_programs_come_from_several_threads_at_once() -> None:
    got: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda n=n: got.append(run([Program(RIGHT, "f", [[n]])] * 3)[2].values))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [(n + 10,) for n in range(6)]


def test_a_fork_has_workers_of_its_own() -> None:
    outcome(RIGHT)
    mine = {worker.process.pid for worker in workers()}
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if not workers() and outcome(RIGHT).values == (11, 12) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {worker.process.pid for worker in workers()} == mine and outcome(RIGHT).values == (11, 12)


# ---- time ----------------------------------------------------------------------------------------------------------


def test_sleepers_cost_what_they_may_sleep_and_a_batch_of_them_no_more_than_its_limit() -> None:
    source = "import time\ntime.sleep(60)\ndef f(x):\n    return x + 10"
    start = time.monotonic()
    assert outcome(source).ended == "asleep"
    assert time.monotonic() - start < 2 * LIMITS["asleep_seconds"] + OVERHEAD
    limits = {**LIMITS, "asleep_seconds": 60, "wall_seconds": 2}
    start = time.monotonic()
    outcomes = run([Program(source, "f", CALLS, limits)] * 8)
    assert {each.ended for each in outcomes} == {"time"}
    assert time.monotonic() - start < 8 * limits["wall_seconds"] / len(os.sched_getaffinity(0)) + OVERHEAD


def test_a_program_that_waits_for_a_cpu_does_not_sleep(own_pool: None) -> None:
    """Six burn time for each CPU; a program that needs half a second of it gets it, though it waits for seconds."""
    limits = {**LIMITS, "cpu_seconds": 3, "call_seconds": 3, "wall_seconds": 600}
    source = "import time\ndef f(x):\n    while time.process_time() < .5: pass\n    return x + 10"
    burners = []
    try:
        for _ in range(6 * len(os.sched_getaffinity(0))):
            child = os.fork()
            if child == 0:
                while os.getppid() != 1:
                    pass
                os._exit(0)
            burners.append(child)
        assert run([Program(source, "f", CALLS, limits)])[0] == Outcome((11, 12), "end")
    finally:
        for child in burners:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_a_program_that_waits_for_its_child_to_work_does_not_sleep() -> None:
    if "no processes" in sandbox.isolation() or "namespaces" not in sandbox.isolation():
        pytest.skip("no processes here")
    limits = {**LIMITS, "asleep_seconds": 0.5, "wall_seconds": 600}
    source = """
import os, time
def f(x):
    if os.fork() == 0:
        while time.process_time() < .8: pass
        os._exit(0)
    os.wait()
    return x + 10
"""
    assert run([Program(source, "f", [[1]], limits)])[0] == Outcome((11,), "end")


@pytest.mark.parametrize("generations", [1, 2])
def test_sleep_is_told_from_work(generations: int) -> None:
    """Of a process that works when it is told to, or whose child does."""
    sleep = keeper.Sleep()
    reading, writing = os.pipe()
    child = _working(reading, generations)
    try:
        _soon(lambda: sleep.of(child))
        os.write(writing, b"work")
        _soon(lambda: not sleep.of(child))
        time.sleep(0.1)
        assert not sleep.of(child)
        os.killpg(child, signal.SIGSTOP)
        _soon(lambda: sleep.of(child))
    finally:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not sleep.of(child), "nobody is there"


def _working(reading: int, generations: int) -> int:
    """A process in a group of its own. The last of several generations works once a pipe gives something."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        for _ in range(generations - 1):
            if os.fork():
                signal.pause()
        os.read(reading, 1)
        while True:
            pass
    os.setpgid(child, child)  # whichever of the two comes first
    return child


def _soon(holds: Callable[[], bool]) -> None:
    """Wait until something holds, on a machine that may be busy."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_costs_less_than_a_twentieth_of_a_second() -> None:
    """Of CPU time, since a busy machine takes longer; that of its keeper and its process among it."""
    programs = [Program(RIGHT, "f", CALLS)] * 100
    run(programs[:4])
    before = cpu_seconds()
    run(programs)
    assert cpu_seconds() - before < len(programs) / 20


def cpu_seconds() -> float:
    """What this process and its workers have used, with the children that they have waited for."""
    used = time.process_time()
    for worker in workers():
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        used += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return used
