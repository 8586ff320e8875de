"""A stage as a flow run, and DVC's graph as a flow, on a toy project of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.flow.__main__ import LIGHT
from pipeline.flow.run import cores
from tests.unit.flow.toy import Project, gone, until

UNKNOWN = """
import pwd

def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = unknown
"""


@pytest.fixture
def bare(tmp_path: Path, root: Path) -> Project:
    """A project that records nothing."""
    return Project(tmp_path / "toy", root, "off")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Project]:
    """A project with no server up yet, behind a proxy, of a user whom the system does not know."""
    project = Project(tmp_path_factory.mktemp("recorded") / "toy", root, "on")
    project.environment["SELFADAPT_WARM"] = "on"  # as stages and their recorders start for a user
    project.environment |= {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    for name in ("HOME", "USER", "LOGNAME"):
        project.environment.pop(name, None)
    (project.folder / "sitecustomize.py").write_text(UNKNOWN)  # which every Python imports as it starts
    yield project
    state = project.folder / ".selfadapt/prefect/server.json"
    if state.exists() and (pid := json.loads(state.read_text()).get("pid")):
        with contextlib.suppress(ProcessLookupError):  # a test has killed it
            os.kill(pid, signal.SIGTERM)


def test_a_stage_that_is_not_recorded_imports_no_prefect(bare: Project) -> None:
    code, said = bare.stage("a", "good")
    assert code == 0, said
    assert (bare.folder / "a").read_text() == "1\n"
    metrics = bare.record("a")["metrics"]
    assert (metrics["number"], metrics["prefect"]) == (1, False)
    assert not (bare.folder / ".selfadapt/prefect").exists()


@pytest.mark.parametrize("stage", LIGHT)
def test_a_stage_that_says_what_there_is_to_run_starts_nothing_else(
    bare: Project, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setitem(bare.environment, "SELFADAPT_PREFECT", "on")
    monkeypatch.setitem(bare.environment, "SELFADAPT_WARM", "on")
    (bare.folder / "stages/toy.py").rename(bare.folder / f"stages/{stage}.py")
    code, said = bare.stage("a", "good", stage)
    assert code == 0, said
    assert bare.record("a", stage)["metrics"] == {"number": 1, "prefect": False, "torch": False}
    assert not {"prefect", "warm"} & {path.name for path in (bare.folder / ".selfadapt").iterdir()}
    code, said = bare.stage("a", "bad", stage)
    assert code == 1
    assert said.splitlines()[-1] == "error: expected a good mode, got 'bad'; write mode: good"


def test_a_persons_mistake_is_one_sentence_and_a_bug_has_its_traceback(bare: Project) -> None:
    code, said = bare.stage("a", "bad")
    assert code == 1
    assert said.splitlines()[-1] == "error: expected a good mode, got 'bad'; write mode: good"
    assert "Traceback" not in said
    code, said = bare.stage("a", "broken")
    assert code == 1
    assert "Traceback" in said
    assert said.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_two_stages_that_start_at_once_start_one_server_and_are_both_recorded(recorded: Project) -> None:
    both = [recorded.start_stage(name, "good") for name in ("first", "second")]
    for process in both:
        _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
        assert "not recorded" not in said
    for name in ("first", "second"):
        run = recorded.flow_run(f"toy@{name}")
        assert run["state_type"] == "COMPLETED"
        assert run["parameters"]["toy"] == {"seconds": 0.1}
        tasks = {task["name"]: task for task in recorded.select("task_runs") if task["flow_run_id"] == run["id"]}
        assert {name: task["state_type"] for name, task in tasks.items()} == {"read": "COMPLETED", "work": "COMPLETED"}
        artifacts = [artifact for artifact in recorded.select("artifacts") if artifact["flow_run_id"] == run["id"]]
        assert {(artifact["type"], artifact["key"]) for artifact in artifacts} == {
            ("progress", None),
            ("table", f"toy-{name}-numbers"),
            ("table", f"toy-{name}-metrics"),
            ("markdown", f"toy-{name}-summary"),
            ("markdown", f"toy-{name}-learning"),
        }
        pages = {artifact["key"]: artifact["data"] for artifact in artifacts if artifact["type"] == "markdown"}
        assert "Step 4: loss 0.750, best validation 0.500." in pages[f"toy-{name}-learning"]
        logged = recorded.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
        steps = [line["message"] for line in logged if line["message"].startswith("step ")]
        assert sorted(steps)[3] == "step 4 of 4: loss 0.750, best validation 0.500"
        assert sorted(run["tags"]) == ["profile: toys", "stage: toy"]
        summary = pages[f"toy-{name}-summary"]
        assert "| number | 1 |" in summary
        assert re.search(rf"\[its run\]\(http://127.0.0.1:\d+/runs/index.html#toy@{name}\)", summary)
        assert [artifact["data"] for artifact in artifacts if artifact["type"] == "progress"] == [100.0]


def test_a_recorded_stage_imports_no_prefect_itself(recorded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recorded.environment, "SELFADAPT_WARM", "off")  # else it is there for the recorder
    assert recorded.stage("third", "good")[0] == 0
    assert recorded.record("third")["metrics"]["prefect"] is False


def test_a_failed_stage_is_shown_failed_with_its_reason(recorded: Project) -> None:
    code, said = recorded.stage("bad", "bad")
    assert code == 1
    assert "Traceback" not in said
    run = recorded.flow_run("toy@bad")
    assert run["state_type"] == "FAILED"
    assert run["state"]["message"] == "expected a good mode, got 'bad'; write mode: good"
    tasks = [task for task in recorded.select("task_runs") if task["flow_run_id"] == run["id"]]
    assert {task["name"]: task["state_type"] for task in tasks} == {"read": "COMPLETED", "work": "FAILED"}


@pytest.mark.parametrize(
    ("sign", "code", "state"),
    [
        (signal.SIGTERM, 143, "CANCELLED"),
        (signal.SIGINT, 130, "CANCELLED"),
        (signal.SIGKILL, -signal.SIGKILL, "CRASHED"),
    ],
)
def test_a_stage_that_is_ended_is_shown_so(recorded: Project, sign: signal.Signals, code: int, state: str) -> None:
    name = f"ended-{sign.name.lower()}"
    process = recorded.start_stage(name, "slow")
    assert process.stderr is not None
    for line in process.stderr:
        if "work" in line:
            break
    process.send_signal(sign)
    assert process.wait(60) == code
    assert recorded.flow_run(f"toy@{name}")["state_type"] == state
    assert not (recorded.folder / name).exists()


def cancel(project: Project, run: dict[str, Any]) -> None:
    """What the button in the UI does."""
    project.post(f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})


def wait_for(project: Project, name: str, state: str) -> dict[str, Any]:
    """The run of this name, once it is in this state."""

    def there() -> list[dict[str, Any]]:
        with contextlib.suppress(OSError):  # the server may be still to come
            return [run for run in project.select("flow_runs") if (run["name"], run["state_type"]) == (name, state)]
        return []

    return until(there, seconds=240, pause=0.3)[0]


def test_a_stage_cancelled_in_the_ui_ends_and_is_shown_so(recorded: Project) -> None:
    process = recorded.start_stage("unwanted", "slow")
    cancel(recorded, wait_for(recorded, "toy@unwanted", "RUNNING"))
    assert process.wait(60) == 143
    run = recorded.flow_run("toy@unwanted")
    assert run["state_type"] == "CANCELLED"
    assert "goes on from its last checkpoint" in run["state"]["message"]
    assert not (recorded.folder / "unwanted").exists()


def test_a_stage_asked_for_again_in_the_ui_runs_in_the_same_run(recorded: Project) -> None:
    """The stage ``again``, which DVC knows; a run of a stage that it does not know fails with DVC's words."""
    for name in ("again", "unknown"):
        process = recorded.start_stage(name, "slow")
        cancel(recorded, wait_for(recorded, f"toy@{name}", "RUNNING"))
        assert process.wait(60) == 143
        run = recorded.flow_run(f"toy@{name}")
        recorded.post(f"flow_runs/{run['id']}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
        again = wait_for(recorded, f"toy@{name}", "COMPLETED" if name == "again" else "FAILED")
        assert again["id"] == run["id"]
    assert (recorded.folder / "again").read_text() == "1\n"
    assert "the stage did not start" in again["state"]["message"]


@pytest.fixture
def slow(recorded: Project) -> Iterator[Project]:
    """The project with a stage more, ``toy@slow``."""
    params = recorded.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before + "  slow: {mode: slow, source: zero}\n")
    yield recorded
    params.write_text(before)
    for left in ("slow", "pid-slow"):
        (recorded.folder / left).unlink(missing_ok=True)


def test_the_whole_graph_cancelled_in_the_ui_ends_with_its_stages(slow: Project) -> None:
    process = slow.start_graph("toy@slow")
    wait_for(slow, "toy@slow", "RUNNING")
    cancel(slow, wait_for(slow, "up to toy@slow", "RUNNING"))
    said, _ = process.communicate(timeout=120)
    assert said.splitlines()[1] == "toy@slow"
    assert "state='failed'" in said and "reason='interrupted'" in said
    assert slow.flow_run("toy@slow")["state_type"] == "CANCELLED"
    assert slow.flow_run("up to toy@slow")["state_type"] == "CANCELLED"
    assert not (slow.folder / "slow").exists()


def test_a_run_that_is_killed_takes_its_stages_with_it(slow: Project) -> None:
    process = slow.start_graph("toy@slow")
    stage = slow.pid("slow")
    below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert stage not in below  # it was forked from the warm server
    process.kill()
    until(lambda: all(map(gone, [stage, *below])), seconds=5)
    process.communicate(timeout=5)
    assert not (slow.folder / "slow").exists()


def test_a_server_that_is_killed_under_a_run_costs_it_nothing_but_its_record(recorded: Project) -> None:
    state, params = recorded.folder / ".selfadapt/prefect/server.json", recorded.folder / "params.yaml"
    before = params.read_text()
    stages = "  first: {mode: good, source: zero}\n  last: {mode: good, source: first}\n"
    params.write_text(before.replace("seconds: 0.1", "seconds: 4") + stages)
    process = recorded.start_graph("toy@last")
    try:
        for stage in ("first", "last"):  # the first one has others to come, nobody starts a server after the last one
            recorded.pid(stage)
            server = until(lambda: next(filter(psutil.pid_exists, [json.loads(state.read_text())["pid"]]), None))
            psutil.Process(server).kill()
        said, errors = process.communicate(timeout=120)
    finally:
        params.write_text(before)
    assert (process.returncode, errors) == (0, "")
    assert recorded.flow_run("up to toy@last")["state_type"] == "COMPLETED"
    assert count(said.splitlines(), "done") == 2
    assert (recorded.folder / "last").read_text() == "2\n"


def run_everything(project: Project) -> list[str]:
    """The outcome of every stage of the graph."""
    process = project.start_graph()
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [line for line in said.splitlines() if line.startswith("Outcome")]


def count(outcomes: list[str], state: str) -> int:
    return sum(f"state='{state}'" in outcome for outcome in outcomes)


def test_the_graph_runs_past_a_failure_and_a_rerun_resumes(recorded: Project) -> None:
    """One story, as starting the project's stages takes its time."""
    outcomes = run_everything(recorded)
    assert (count(outcomes, "failed"), count(outcomes, "skipped")) == (1, 1)
    assert "expected a good mode, got 'bad'" in "".join(outcomes)
    tasks = {task["name"]: task for task in recorded.select("task_runs")}
    states = {name: tasks[f"toy@{name}"]["state_name"] for name in "abcd"}
    assert states == {"a": "Completed", "b": "Failed", "c": "Completed", "d": "Skipped"}
    # A stage's own run hangs beneath the parent's task.
    assert recorded.flow_run("toy@a")["parent_task_run_id"] == tasks["toy@a"]["id"]
    assert recorded.flow_run("everything")["state_type"] == "FAILED"

    params = recorded.folder / "params.yaml"
    params.write_text(params.read_text().replace("mode: bad", "mode: good"))
    outcomes = run_everything(recorded)
    assert (count(outcomes, "done"), count(outcomes, "unchanged")) == (2, 3)
    assert (recorded.folder / "d").read_text() == "2\n"
    assert (recorded.folder / "share").read_text() == str(max(1, cores() // 2))  # of two stages side by side

    shown = len(recorded.select("flow_runs"))
    assert count(run_everything(recorded), "unchanged") == 5
    assert len(recorded.select("flow_runs")) == shown  # there was nothing to record
    status = subprocess.run(
        ["dvc", "status"],
        cwd=recorded.folder,
        env=recorded.environment | {"USER": "somebody", "HOME": str(recorded.folder)},  # DVC itself needs both
        capture_output=True,
        text=True,
        check=True,
    )
    assert "up to date" in status.stdout
