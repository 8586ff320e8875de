"""A run on the profile tiny that is killed again and again, or finds the disk full, ends as an undisturbed one.

    python -m pytest -m long tests/end_to_end    # ten minutes on two cores; the full disk needs root, for a tmpfs

Not part of `make test`, which kills three stages (``test_tiny``).
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import yaml

from pipeline.core.artifacts import digest
from pipeline.flow.run import read_graph
from tests.clone import ENV, clone

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]
KILLS, FILLS = 20, 5
PART = "score@groceries-few_shot-0"  # what is run with the disk full: it needs a stage of nearly every kind
DISK = "64m"
STARTED = re.compile(r"Running stage '(.+)'")


class Run:
    """One ``dvc repro`` in a process group of its own. starts: (seconds since its beginning, stage), as they start."""

    def __init__(self, folder: Path, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "pipeline.flow.lock"], cwd=folder, env=ENV, check=True)  # as README says
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            ["dvc", "repro", *words],
            cwd=folder,
            env=ENV,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.starts: list[tuple[float, str]] = []
        self.lines: list[str] = []

    def follow(self, act: Callable[[str], bool] = lambda stage: False) -> int:
        """Read to the end, or until ``act``, which is told each stage that starts, says that it is enough."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if started := STARTED.match(line):
                self.starts.append((time.monotonic() - self.begun, started[1]))
                if act(started[1]):
                    break
        else:
            self.process.wait()
        return self.process.poll()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def results(folder: Path) -> dict[str, str]:
    """The hash of everything that a run makes; ``reports/runs`` holds how long it took."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"].values()
    paths = [out["path"] for stage in stages for out in stage["outs"] if out["path"] != "reports/runs"]
    return {path: digest(folder / path) for path in paths}


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory) -> tuple[dict[str, str], dict[str, float]]:
    """What an undisturbed run makes, and the seconds that each stage takes, in their order."""
    folder = clone(root, tmp_path_factory.mktemp("undisturbed") / "project")
    run = Run(folder)
    assert run.follow() == 0, "".join(run.lines[-30:])
    times = [*(start for start, _ in run.starts), time.monotonic() - run.begun]
    seconds = [after - before for before, after in pairwise(times)]
    return results(folder), dict(zip((stage for _, stage in run.starts), seconds, strict=True))


def moments(seconds: dict[str, float], count: int, seed: int) -> list[tuple[int, float]]:
    """Random moments of a run, in their order: the place of the stage that runs then, and seconds since its start."""
    ends = list(accumulate(seconds.values()))
    dice = random.Random(seed)
    drawn = sorted(dice.uniform(0, ends[-1]) for _ in range(count))
    places = [bisect_right(ends[:-1], moment) for moment in drawn]
    return [(place, moment - (ends[place - 1] if place else 0)) for place, moment in zip(places, drawn, strict=True)]


def reached(order: list[str], place: int) -> Callable[[str], bool]:
    """Whether a run has come to a place of the order, or passed it."""
    return lambda stage: order.index(stage) >= place


def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_bytes(root, tmp_path, undisturbed):
    expected, durations = undisturbed
    folder = clone(root, tmp_path / "project")
    killed = []
    for place, seconds in moments(durations, KILLS, seed=0):
        run = Run(folder)
        assert run.follow(reached([*durations], place)) in (None, 0), "".join(run.lines[-30:])
        with suppress(subprocess.TimeoutExpired):
            run.process.wait(seconds)
        if run.process.poll() is None:
            run.kill()
            killed.append(run.starts[-1][1])
    print(f"killed in: {', '.join(killed)}")
    assert len(killed) >= KILLS - 1  # the last moment may find everything done
    run = Run(folder)
    assert run.follow() == 0, "".join(run.lines[-30:])
    assert results(folder) == expected
    assert not list((folder / ".selfadapt" / "checkpoints").glob("*/*"))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Leave not a byte on the disk of ``path``."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_a_run_that_finds_the_disk_full_says_so_in_a_sentence_and_ends_with_the_same_bytes(root, tmp_path, undisturbed):
    expected, durations = undisturbed
    with small_disk(tmp_path / "disk") as disk:
        folder = clone(root, disk / "project")
        with chdir(folder):
            needed = read_graph([PART]).needs
        part = {stage: seconds for stage, seconds in durations.items() if stage in needed}
        for place, _ in moments(part, FILLS, seed=1):  # as a stage starts: later, it may need no room any more
            run = Run(folder, PART)
            assert run.follow(reached([*part], place)) in (None, 0), "".join(run.lines[-30:])
            fill(disk / "filler")
            code = run.follow()
            (disk / "filler").unlink()
            said = "".join(run.lines)
            assert code != 0, said[-3000:]
            assert "Traceback" not in said, said[-3000:]
            sentences = [line for line in run.lines if "No space left on device" in line or "(os error 28)" in line]
            print(f"{run.starts[-1][1]}: {''.join(sentences)}")
            assert sentences, said[-3000:]
        run = Run(folder, PART)
        assert run.follow() == 0, "".join(run.lines[-30:])
        made = results(folder)
        assert made == {path: expected[path] for path in made}
