"""One run of a graph, without Prefect: what it does where other DVC processes are in its way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.flow import children, lock, run
from pipeline.flow.run import Graph, Outcome, Run
from tests.unit.flow.toy import until

# The stage leaves behind a process that holds DVC's lock, which DVC needs once more to write down what the stage made.
GRAPH = f"""
stages:
  one:
    cmd:
      - echo ran >> log
      - "{sys.executable} hold.py $HOLD & until test -s pid; do sleep 0.1; done"
      - sleep $PAUSE; touch a
    outs: [a]
"""
HOLD = """
import os, sys, time
from pathlib import Path
from zc.lockfile import LockFile

held = LockFile(".dvc/tmp/lock")
Path("pid").write_text(str(os.getpid()))
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run of a graph of one stage, in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAUSE", "0")
    monkeypatch.setattr(lock, "TELL_SECONDS", 0.1)
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(children, "LOOK_SECONDS", 0.5)
    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text(GRAPH)
    Path("hold.py").write_text(HOLD)
    begun = Run(Graph({"one": []}, frozenset({"one"})), jobs=1, tell=lambda news: None, environment=os.environ)
    yield begun
    begun.children.close()


def test_a_stage_that_has_done_its_work_is_not_run_again_because_dvc_is_busy(
    started: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC itself gives up its lock after three seconds."""
    monkeypatch.setenv("HOLD", "4")
    outcome = started.bring_up_to_date("one", parent="")
    assert outcome.state == "done", outcome
    assert Path("log").read_text() == "ran\n"
    assert f"note: waiting for process {Path('pid').read_text()} (" in capsys.readouterr().err


def test_a_stage_waits_for_dvc_no_longer_than_half_an_hour(started: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WAIT_SECONDS", 1.0)
    monkeypatch.setenv("HOLD", "60")
    outcome = started.bring_up_to_date("one", parent="")
    assert outcome.state == "failed"
    assert f"process {Path('pid').read_text()} (" in outcome.reason and "still holds it; wait until" in outcome.reason


def test_a_stage_at_which_another_process_is_at_work_is_run_afterwards(
    started: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLD", "0")
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro"], env=os.environ | {"PAUSE": "3"}) as other:
        until(Path("pid").exists)
        outcome = started.bring_up_to_date("one", parent="")
        assert other.wait() == 0
    assert (outcome.state, Path("log").read_text()) == ("unchanged", "ran\n")


def test_what_is_not_stale_or_not_possible_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Outcome | str] = []
    graph = Graph({"a": [], "b": ["a"], "c": [], "d": ["c"], "e": ["b"]}, frozenset({"b", "c", "d"}))
    begun = Run(graph, jobs=1, tell=told.append, environment={})
    states = {"b": "unchanged", "c": "failed"}
    monkeypatch.setattr(begun, "_repro", lambda stage, parent: Outcome(stage, states[stage]))
    for stage in graph.needs:
        begun.bring_up_to_date(stage, parent="")
    assert [(outcome.stage, outcome.state) for outcome in begun.outcomes.values()] == [
        ("a", "unchanged"),
        ("b", "unchanged"),
        ("c", "failed"),
        ("d", "skipped"),
        ("e", "unchanged"),
    ]
    assert [news for news in told if isinstance(news, str)] == ["b", "c"]


def test_what_much_depends_on_goes_before_what_has_waited_longer() -> None:
    """Of ready stages the graph's first go first, though the others were ready before; and no more than may run."""
    graph = Graph({"a": [], "b": ["a"], "c": ["b"], "x": [], "y": [], "z": []}, frozenset())
    begun = Run(graph, jobs=2, tell=lambda news: None, environment={})
    futures: dict[str, Future[None]] = {}

    def submit(stage: str, needed: list[Future[None]]) -> Future[None]:
        assert all(future.done() for future in needed)
        begun.outcomes[stage] = Outcome(stage, "unchanged")
        futures[stage] = Future()
        for other in [stage] if stage not in ("x", "z") else ["x", "z"] if stage == "z" else []:
            futures[other].set_result(None)  # all end at once but x, which takes as long as the whole run
        assert sum(not future.done() for future in futures.values()) <= 2
        return futures[stage]

    begun.walk(submit, at_once=2)
    assert list(futures) == ["a", "x", "b", "c", "y", "z"]


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (-9, "Running stage 'a':\n> python a\n", "killed by signal 9"),
        (
            255,
            "> python a\nERROR: failed to reproduce 'a': failed to run: python a, exited with -9\n",
            "killed by signal 9",
        ),
        (255, "> python a\nERROR: failed to reproduce 'a': failed to run: python a, exited with 3\n", "exit code 255"),
        (
            255,
            "> python a\n· work\nERROR: failed to reproduce 'a': failed to run: a, exited with 137\n",
            "killed by signal 9",
        ),
        (255, "> python a\nTraceback\nKeyError: 3\nERROR: failed to reproduce 'a': exited with 1\n", "KeyError: 3"),
        (255, "> python a\nhello\nerror: expected b\nERROR: failed to reproduce 'a': exited with 1\n", "expected b"),
        (255, "ERROR: failed to reproduce 'a': output 'b' does not exist\n", "exit code 255"),
        (1, "", "exit code 1"),
    ],
)
def test_a_failed_stage_says_why_in_its_own_words_or_how_it_ended(code: int, said: str, reason: str) -> None:
    assert run.outcome_of("a", code, said, 1.0).reason.partition(" (")[0] == reason
