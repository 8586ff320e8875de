"""A stage as a flow run, and DVC's graph as a flow, on a toy project of its own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.flow.run import cores

STAGE = '''
"""A toy stage."""
import os
import sys
import time
from pathlib import Path

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import progress, show_table, step
from pipeline.core.stage import In, Out


class Toy(Section, at="toy"):
    seconds: float


def run(*, mode: str, toy: Toy, source: In, result: Out) -> dict:
    """Read a number, wait, write it plus one."""
    with step("read"):
        number = int(source.read_text())
    with step("work"):
        for _ in progress("working", range(4), 4):
            time.sleep((30.0 if mode == "slow" else toy.seconds) / 4)
        if mode == "bad":
            raise UserError("expected a good mode, got 'bad'; write mode: good")
        if mode == "broken":
            raise ZeroDivisionError("division by zero")
    Path("share").write_text(os.environ.get("SELFADAPT_THREADS", "all"))
    result.write_text(f"{number + 1}\\n")
    show_table("numbers", [{"in": number, "out": number + 1}])
    return {"number": number + 1, "prefect": "prefect" in sys.modules}
'''
GRAPH = """
stages:
  toy:
    foreach: ${toys}
    do:
      cmd: python -m pipeline.flow toy@${key} --mode ${item.mode} --source ${item.source} --result ${key}
      deps: [stages/toy.py, "${item.source}"]
      params: [toy]
      outs: ["${key}"]
"""
PARAMS = """
toy: {seconds: 0.1}
toys:
  a: {mode: good, source: zero}
  b: {mode: bad, source: zero}
  c: {mode: good, source: a}
  d: {mode: good, source: b}
  again: {mode: good, source: zero}
"""


class Project:
    """A toy project in a folder, and what a person would type there."""

    def __init__(self, folder: Path, root: Path, recording: str) -> None:
        self.folder = folder
        (folder / "stages").mkdir(parents=True)
        (folder / "stages/toy.py").write_text(STAGE)
        (folder / "dvc.yaml").write_text(GRAPH)
        (folder / "params.yaml").write_text(PARAMS)
        (folder / "zero").write_text("0\n")
        with socket.socket() as probe:  # so that a server on the usual port is left alone
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
            "PYTHONPATH": f"{folder}{os.pathsep}{root}",
            "SELFADAPT_PREFECT": recording,
            "PREFECT_SERVER_API_PORT": str(port),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=folder, check=True, env=self.environment)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_stage(self, name: str, mode: str) -> subprocess.Popen[str]:
        return self.start("pipeline.flow", f"toy@{name}", "--mode", mode, "--source", "zero", "--result", name)

    def stage(self, name: str, mode: str) -> tuple[int, str]:
        """The exit code of a stage, and its words on stderr."""
        process = self.start_stage(name, mode)
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    def select(self, kind: str) -> Any:
        """What the server knows: ``flow_runs``, ``task_runs`` or ``artifacts``."""
        return self.post(f"{kind}/filter", {})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        port = json.loads((self.folder / ".selfadapt/prefect/server.json").read_text())["port"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def flow_run(self, name: str) -> dict[str, Any]:
        """The one run of this name, once it has ended (the recorder may be behind, and the server still starting)."""
        for _ in range(400):
            there = (self.folder / ".selfadapt/prefect/server.json").exists()
            found = [run for run in self.select("flow_runs") if run["name"] == name] if there else []
            if found and found[0]["state_type"] not in ("RUNNING", "PENDING"):
                assert len(found) == 1
                return found[0]
            time.sleep(0.2)
        raise AssertionError(f"no run {name} that has ended: {found}")


@pytest.fixture
def bare(tmp_path: Path, root: Path) -> Project:
    """A project that records nothing."""
    return Project(tmp_path / "toy", root, "off")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Project]:
    """A project with no server up yet."""
    project = Project(tmp_path_factory.mktemp("recorded") / "toy", root, "on")
    project.environment["SELFADAPT_WARM"] = "on"  # as stages and their recorders start for a user
    yield project
    state = project.folder / ".selfadapt/prefect/server.json"
    if state.exists() and (pid := json.loads(state.read_text()).get("pid")):
        os.kill(pid, signal.SIGTERM)


def test_a_stage_that_is_not_recorded_imports_no_prefect(bare: Project) -> None:
    code, said = bare.stage("a", "good")
    assert code == 0, said
    assert (bare.folder / "a").read_text() == "1\n"
    record = json.loads((bare.folder / ".selfadapt/runs/toy@a.json").read_text())
    assert record["metrics"] == {"number": 1, "prefect": False}
    assert not (bare.folder / ".selfadapt/prefect").exists()


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
        }
        summary = next(artifact["data"] for artifact in artifacts if artifact["type"] == "markdown")
        assert "| number | 1 |" in summary
        assert re.search(rf"\[its run\]\(http://127.0.0.1:\d+/runs/index.html#toy@{name}\)", summary)
        assert [artifact["data"] for artifact in artifacts if artifact["type"] == "progress"] == [100.0]


def test_a_recorded_stage_imports_no_prefect_itself(recorded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recorded.environment, "SELFADAPT_WARM", "off")  # else it is there for the recorder
    assert recorded.stage("third", "good")[0] == 0
    record = json.loads((recorded.folder / ".selfadapt/runs/toy@third.json").read_text())
    assert record["metrics"]["prefect"] is False


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
    for _ in range(300):
        with contextlib.suppress(OSError):  # the server may be still to come
            found = [run for run in project.select("flow_runs") if run["name"] == name and run["state_type"] == state]
            if found:
                return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no run {name} in the state {state}")


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


def test_the_whole_graph_cancelled_in_the_ui_ends_with_its_stages(recorded: Project) -> None:
    params = recorded.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before + "  slow: {mode: slow, source: zero}\n")
    process = recorded.start("selfadapt.cli", "run", "toy@slow")
    wait_for(recorded, "toy@slow", "RUNNING")
    cancel(recorded, wait_for(recorded, "up to toy@slow", "RUNNING"))
    _, said = process.communicate(timeout=120)
    params.write_text(before)
    assert process.returncode == 1, said
    assert "✗ toy@slow" in said and "interrupted" in said
    assert recorded.flow_run("toy@slow")["state_type"] == "CANCELLED"
    assert recorded.flow_run("up to toy@slow")["state_type"] == "CANCELLED"
    assert not (recorded.folder / "slow").exists()


def run_everything(project: Project) -> tuple[int, str]:
    process = project.start("selfadapt.cli", "run")
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def test_the_graph_runs_past_a_failure_and_a_rerun_resumes(recorded: Project) -> None:
    """One story, as starting the project's stages takes its time."""
    code, said = run_everything(recorded)
    assert code == 1
    assert "1 failed, 1 skipped" in said
    assert "expected a good mode, got 'bad'" in said
    tasks = {task["name"]: task for task in recorded.select("task_runs")}
    states = {name: tasks[f"toy@{name}"]["state_name"] for name in "abcd"}
    assert states == {"a": "Completed", "b": "Failed", "c": "Completed", "d": "Skipped"}
    # A stage's own run hangs beneath the parent's task.
    assert recorded.flow_run("toy@a")["parent_task_run_id"] == tasks["toy@a"]["id"]
    assert recorded.flow_run("everything")["state_type"] == "FAILED"

    params = recorded.folder / "params.yaml"
    params.write_text(params.read_text().replace("mode: bad", "mode: good"))
    code, said = run_everything(recorded)
    assert code == 0, said
    assert "2 done, 3 unchanged" in said
    assert (recorded.folder / "d").read_text() == "2\n"
    assert (recorded.folder / "share").read_text() == str(max(1, cores() // 2))  # of two stages side by side

    code, said = run_everything(recorded)
    assert code == 0, said
    assert "5 unchanged" in said
    status = subprocess.run(
        ["dvc", "status"], cwd=recorded.folder, env=recorded.environment, capture_output=True, text=True, check=True
    )
    assert "up to date" in status.stdout
