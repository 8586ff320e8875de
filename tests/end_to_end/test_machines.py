"""Part of the profile tiny on several machines: two workers of Dask in clones of their own, one of which is killed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from dvc.utils.serialize import dumps_yaml

from pipeline.flow.plan import update
from tests.clone import ENV, clone, dvc

pytest.importorskip("prefect_dask", reason="several machines need the extra selfadapt[dask]")
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(2400)]  # a minute and a half, on two quiet cores
TRAINING = "train_svf@sums-0"
AWAY = ["initialise@base", "factorize@base", TRAINING]  # what is left for the machines to do
RECORDED = {**ENV, "SELFADAPT_PREFECT": "on"}


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return value


def stages(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def stored(remote: Path) -> set[Path]:
    return {path for path in remote.rglob("*") if path.is_file()}


def at_work(folder: Path) -> list[psutil.Process]:
    """The processes that are in a folder, the server aside that stages are forked from, which ends by itself."""
    found = []
    for process in psutil.process_iter():
        try:
            is_server = "pipeline.flow.warm" in process.cmdline() and os.getsid(process.pid) == process.pid
            if process.cwd() == str(folder) and not is_server and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@dataclass
class Machines:
    """A coordinator's folder, a scheduler, and workers, all on this machine."""

    coordinator: Path
    remote: Path
    address: str
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    api: str = os.environ.get("PREFECT_API_URL", "")

    def start_worker(self, name: str) -> None:
        words = [self.address, "--name", name, "--nthreads", "2", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        with (self.folder(name) / "worker.log").open("wb") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", *words, "--host", "127.0.0.1"],
                cwd=self.folder(name),
                env={**RECORDED, "PYTHONPATH": str(self.folder(name))},
                stdout=log,
                stderr=log,
            )

    def folder(self, name: str) -> Path:
        return self.coordinator.with_name(name)

    def start_run(self, *words: str) -> subprocess.Popen[str]:
        """``selfadapt run --on`` the scheduler."""
        return subprocess.Popen(
            [sys.executable, "-m", "selfadapt.cli", "run", "--on", self.address, *words],
            cwd=self.coordinator,
            env={**RECORDED, "PYTHONPATH": str(self.coordinator)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Ask Prefect's server."""
        api = self.api
        if not api:
            port = json.loads((self.coordinator / ".selfadapt/prefect/server.json").read_text())["port"]
            api = f"http://127.0.0.1:{port}/api"
        request = urllib.request.Request(
            f"{api}/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone after ``dvc repro`` up to the training."""
    folder = clone(root, tmp_path_factory.mktemp("reference") / "project")
    dvc(folder, "repro", TRAINING)
    return folder


def without(folder: Path, left: list[str]) -> None:
    """Take stages and what they have made out of a clone, as if they had never run."""
    record = yaml.safe_load((folder / "dvc.lock").read_text())
    for name in left:
        for out in record["stages"].pop(name)["outs"]:
            path = folder / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "dvc.lock").write_text(dumps_yaml(record))
    for name in (".selfadapt", ".dvc/tmp", ".dvc/cache/runs"):
        shutil.rmtree(folder / name, ignore_errors=True)


@pytest.fixture(scope="module")
def machines(root: Path, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The reference with three stages to do; clones with a worker each, one of them with other code; a remote."""
    base = tmp_path_factory.mktemp("machines")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Machines(base / "coordinator", base / "remote", f"tcp://127.0.0.1:{port}")
    shutil.copytree(reference, made.coordinator)
    without(made.coordinator, AWAY)
    clone(root, made.folder("one"))
    for folder in (made.coordinator, made.folder("one")):
        dvc(folder, "remote", "add", "--default", "store", str(made.remote))
    for name in ("two", "old"):
        shutil.copytree(made.folder("one"), made.folder(name))
    with (made.folder("old") / "pipeline/scoring/numbers/__init__.py").open("a") as file:
        file.write("\nCHANGED = 1\n")
    words = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *words],
        cwd=base,
        env=RECORDED,
        stderr=subprocess.DEVNULL,
    )
    for name in ("one", "two", "old"):
        made.start_worker(name)
    yield made
    for process in (*made.workers.values(), scheduler):
        process.kill()
        process.wait()
    state = made.coordinator / ".selfadapt/prefect/server.json"
    if state.exists() and (pid := json.loads(state.read_text()).get("pid")):
        os.kill(pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def story(machines: Machines) -> tuple[list[str], str]:
    """The lines of a run in which the worker that trains is killed, and that worker's name."""
    process = machines.start_run(TRAINING)

    def trains() -> str:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        logs = {name: machines.folder(name) / f".selfadapt/logs/{TRAINING}.log" for name in ("one", "two")}
        return next((name for name, log in logs.items() if log.exists() and "Running" in log.read_text()), "")

    killed = until(trains, 900, "the training to begin")
    machines.workers[killed].kill()
    machines.workers[killed].wait()
    until(lambda: not at_work(machines.folder(killed)), 20, "what the killed worker had started to end")
    left = {path: path.stat().st_mtime_ns for path in machines.folder(killed).rglob("*") if path.is_file()}
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert left == {path: path.stat().st_mtime_ns for path in machines.folder(killed).rglob("*") if path.is_file()}
    return said.splitlines(), killed


def test_the_record_is_that_of_dvc_repro(machines: Machines, story: tuple[list[str], str], reference: Path) -> None:
    assert stages(machines.coordinator) == stages(reference)
    assert dvc(machines.coordinator, "status", TRAINING).strip().endswith("up to date.")


def test_no_stage_that_had_ended_is_called_again(story: tuple[list[str], str]) -> None:
    assert [line.split()[1] for line in story[0] if line.startswith("·")] == [*AWAY, TRAINING]


def test_a_worker_with_other_code_gets_no_stage(machines: Machines, story: tuple[list[str], str]) -> None:
    (note,) = [line for line in story[0] if "gets no stage" in line]
    assert f"in {machines.folder('old')} gets no stage: expected the code of the run, got another in" in note
    assert not (machines.folder("old") / ".selfadapt/logs").exists()


def test_the_seconds_of_a_stage_are_known_wherever_it_ran(machines: Machines, story: tuple[list[str], str]) -> None:
    record = json.loads((machines.coordinator / f".selfadapt/runs/{TRAINING}.json").read_text())
    assert record["seconds"] > 0
    assert record["stage"] == TRAINING


def test_a_second_run_runs_and_moves_nothing(machines: Machines, story: tuple[list[str], str]) -> None:
    before = stored(machines.remote)
    logs = machines.coordinator / ".selfadapt/logs"
    moved = {log.name: log.stat().st_mtime_ns for log in logs.glob("pu*.log")}
    said, _ = (process := machines.start_run(TRAINING)).communicate(timeout=600)
    assert process.returncode == 0, said
    assert re.search(r"^\d+ unchanged in", said, re.MULTILINE), said
    assert stored(machines.remote) == before
    assert moved == {log.name: log.stat().st_mtime_ns for log in logs.glob("pu*.log")}


def test_a_run_cancelled_in_the_ui_leaves_nothing_at_work(machines: Machines, story: tuple[list[str], str]) -> None:
    left = "two" if story[1] == "one" else "one"
    params = machines.coordinator / "params.yaml"
    params.write_text(params.read_text().replace("reinforce: {steps: 2,", "reinforce: {steps: 5000,"))
    update(params, machines.coordinator / "plan.yaml")
    log = machines.folder(left) / f".selfadapt/logs/{TRAINING}.log"
    log.unlink(missing_ok=True)
    process = machines.start_run(TRAINING)
    until(lambda: log.exists() and "Running" in log.read_text(), 600, "the training to begin")
    runs = machines.ask("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    (run,) = [run for run in runs if run["name"] == f"up to {TRAINING}"]
    machines.ask(f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    worker = machines.workers[left].pid
    until(lambda: [one.pid for one in at_work(machines.folder(left))] == [worker], 10, "the training to end")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"✗ {TRAINING}" in said and "interrupted" in said
    assert (
        machines.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})[0]["state_type"] == "CANCELLED"
    )


def test_with_one_cache_nothing_is_pushed(machines: Machines, reference: Path, tmp_path: Path) -> None:
    """Workers on this machine, each in a folder that the run makes."""
    folder, remote = tmp_path / "project", tmp_path / "remote"
    shutil.copytree(reference, folder)
    without(folder, ["prepare@sums", *AWAY])
    dvc(folder, "remote", "add", "--default", "store", str(remote))
    words = [sys.executable, "-m", "selfadapt.cli", "run", "--on", "dask", "-j", "1", "prepare@sums"]
    environment = {**RECORDED, "PYTHONPATH": str(folder)}
    if not machines.api:
        port = json.loads((machines.coordinator / ".selfadapt/prefect/server.json").read_text())["port"]
        environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not stored(remote)
    ours, theirs = stages(folder), stages(reference)
    assert ours == {name: theirs[name] for name in theirs if name not in AWAY}
    assert (folder / "data/tasks/sums/test.jsonl").is_file()
    assert (folder / ".selfadapt/runs/prepare@sums.json").is_file()
    assert not at_work(folder) and not at_work(folder / ".selfadapt/machines/1")
