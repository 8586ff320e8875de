"""Stages on several machines: workers of Dask in clones of their own, one of which is killed as it trains.

    python -m pytest -m long tests/end_to_end/test_machines.py    # the same with a training of the profile tiny

By default the stages are toys, which add one to a number: what there is to see is the same.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from dvc.utils.serialize import dumps_yaml

from pipeline.flow import server
from tests.clone import ENV, clone, dvc
from tests.unit.flow.toy import STAGE, until

pytest.importorskip("prefect_dask", reason="several machines need the extra selfadapt[dask]")
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(3600)]
RECORDED = {**ENV, "SELFADAPT_PREFECT": "on"}
GRAPH = """
stages:
  zero: {cmd: echo 0 > zero, deps: [stages/toy.py], outs: [zero]}
  toy:
    foreach: ${toys}
    do:
      cmd: python -m pipeline.flow toy@${key} --mode good --source ${item.source} --result ${key}
      deps: ["${item.source}"]
      params: [toy]
      outs: ["${key}"]
"""
PARAMS = "toy: {seconds: 2.0}\ntoys: {first: {source: zero}, trained: {source: first}, scored: {source: trained}}\n"
RUN = """
import sys
from pipeline.flow.run import Graph, Outcome, run_graph

def tell(news):
    if isinstance(news, Outcome):
        print("=", news.stage, news.state, news.reason, flush=True)
    elif not isinstance(news, Graph):
        print("·", news, flush=True)

if __name__ == "__main__":
    states = [outcome.state for outcome in run_graph(sys.argv[2:], jobs=1, tell=tell, on=sys.argv[1])]
    sys.exit("failed" in states)
"""


@dataclass(frozen=True)
class Case:
    """A project. away: the stages for workers, in their order. training: that of them whose worker is killed.

    shared: one for a run with a shared cache. endless: one that never ends once ``edit`` has changed params.yaml.
    """

    away: tuple[str, ...]
    training: str
    shared: str
    endless: str
    edit: tuple[str, str]
    warm: str


CASES = {
    "toy": Case(
        away=("toy@first", "toy@trained", "toy@scored"),
        training="toy@trained",
        shared="toy@first",
        endless="toy@first",
        edit=("seconds: 2.0", "seconds: 6000.0"),
        warm="off",
    ),
    "tiny": Case(
        away=("initialise@base", "factorize@base", "train_svf@sums-0"),
        training="train_svf@sums-0",
        shared="prepare@sums",
        endless="train_svf@sums-0",
        edit=("reinforce: {steps: 2,", "reinforce: {steps: 5000,"),
        warm="on",
    ),
}


def stages(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "dvc.lock").read_text())["stages"]


def stored(remote: Path) -> set[Path]:
    return {path for path in remote.rglob("*") if path.is_file()}


def at_work(folder: Path) -> list[psutil.Process]:
    """The processes that are in a folder.

    Two that end by themselves aside: the server that stages are forked from, and what records how a stage ended.
    """
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            aside = "pipeline.flow.recorder" in words or (
                "pipeline.flow.warm" in words and os.getsid(process.pid) == process.pid
            )
            if process.cwd() == str(folder) and not aside and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@dataclass
class Machines:
    """A coordinator's folder, a scheduler, and workers, all on this machine."""

    case: Case
    coordinator: Path
    remote: Path
    address: str
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    api: str = os.environ.get("PREFECT_API_URL", "")

    @property
    def environment(self) -> dict[str, str]:
        return {**RECORDED, "SELFADAPT_WARM": self.case.warm} | ({"PREFECT_API_URL": self.api} if self.api else {})

    def start_worker(self, name: str) -> None:
        words = [self.address, "--name", name, "--nthreads", "2", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        with (self.folder(name) / "worker.log").open("wb") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_worker", *words, "--host", "127.0.0.1"],
                cwd=self.folder(name),
                env={**self.environment, "PYTHONPATH": str(self.folder(name))},
                stdout=log,
                stderr=log,
            )

    def folder(self, name: str) -> Path:
        return self.coordinator.with_name(name)

    def start_run(self, *targets: str, on: str = "", folder: Path | None = None) -> subprocess.Popen[str]:
        """Bring stages up to date on the scheduler's workers, or those of ``on``."""
        folder = folder or self.coordinator
        return subprocess.Popen(
            [sys.executable, "-c", RUN, on or self.address, *targets],
            cwd=folder,
            env={**self.environment, "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Ask Prefect's server."""
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module", params=["toy", pytest.param("tiny", marks=pytest.mark.long)])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def project(root: Path, folder: Path, case: Case) -> Path:
    """A clone of the project, or of one with its code and toys for stages."""
    clone(root, folder)
    if case is CASES["toy"]:
        for name, text in (("dvc.yaml", GRAPH), ("params.yaml", PARAMS), ("stages/toy.py", STAGE)):
            (folder / name).write_text(text)
        (folder / "plan.yaml").unlink()
    return folder


@pytest.fixture(scope="module")
def reference(root: Path, case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone after ``dvc repro`` of what the machines will do."""
    folder = project(root, tmp_path_factory.mktemp("reference") / "project", case)
    environment = {**ENV, "SELFADAPT_WARM": case.warm}
    subprocess.run(["dvc", "repro", "-q", case.away[-1]], cwd=folder, env=environment, check=True)
    return folder


def copy(folder: Path, to: Path) -> None:
    """A copy of a clone, without what a run leaves beside its results."""
    shutil.copytree(folder, to, ignore=lambda path, names: {".selfadapt", "tmp", "runs"} & set(names))


def without(folder: Path, left: Iterable[str]) -> None:
    """Take stages and what they have made out of a clone, as if they had never run."""
    record = yaml.safe_load((folder / "dvc.lock").read_text())
    for name in left:
        for out in record["stages"].pop(name)["outs"]:
            path = folder / out["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "dvc.lock").write_text(dumps_yaml(record))


@pytest.fixture(scope="module")
def machines(root: Path, case: Case, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The reference with three stages to do; clones with a worker each, one of them with other code; a remote."""
    base = tmp_path_factory.mktemp("machines")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Machines(case, base / "coordinator", base / "remote", f"tcp://127.0.0.1:{port}")
    copy(reference, made.coordinator)
    without(made.coordinator, case.away)
    project(root, made.folder("one"), case)
    for folder in (made.coordinator, made.folder("one")):
        dvc(folder, "remote", "add", "--default", "store", str(made.remote))
    for name in ("two", "old"):
        copy(made.folder("one"), made.folder(name))
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
    with chdir(made.coordinator):
        own = not made.api
        made.api = made.api or server.ensure() or ""
    yield made
    for process in (*made.workers.values(), scheduler):
        process.kill()
        process.wait()
    if own:
        os.kill(json.loads((made.coordinator / ".selfadapt/prefect/server.json").read_text())["pid"], signal.SIGTERM)


@pytest.fixture(scope="module")
def story(machines: Machines) -> tuple[list[str], str]:
    """The lines of a run in which the worker that trains is killed, and that worker's name."""
    process, training = machines.start_run(machines.case.away[-1]), machines.case.training

    def trains() -> str:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        logs = {name: machines.folder(name) / f".selfadapt/logs/{training}.log" for name in ("one", "two")}
        return next((name for name, log in logs.items() if log.exists() and "Running" in log.read_text()), "")

    killed = until(trains, seconds=900)
    machines.workers[killed].kill()
    machines.workers[killed].wait()
    until(lambda: not at_work(machines.folder(killed)), seconds=100)
    left = {path: path.stat().st_mtime_ns for path in machines.folder(killed).rglob("*") if path.is_file()}
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert left == {path: path.stat().st_mtime_ns for path in machines.folder(killed).rglob("*") if path.is_file()}
    return said.splitlines(), killed


def test_the_record_is_that_of_dvc_repro(machines: Machines, story: tuple[list[str], str], reference: Path) -> None:
    assert stages(machines.coordinator) == stages(reference)
    assert dvc(machines.coordinator, "status", machines.case.away[-1]).strip().endswith("up to date.")


def test_no_stage_that_had_ended_is_called_again(machines: Machines, story: tuple[list[str], str]) -> None:
    begun = [line.split()[1] for line in story[0] if line.startswith("·")]
    assert begun == [name for name in machines.case.away for _ in range(1 + (name == machines.case.training))]


def test_a_worker_with_other_code_gets_no_stage(machines: Machines, story: tuple[list[str], str]) -> None:
    (note,) = [line for line in story[0] if "gets no stage" in line]
    assert f"in {machines.folder('old')} gets no stage: expected the code of the run, got another in" in note
    assert not (machines.folder("old") / ".selfadapt/logs").exists()


def test_the_seconds_of_a_stage_are_known_wherever_it_ran(machines: Machines, story: tuple[list[str], str]) -> None:
    for name in machines.case.away:
        record = json.loads((machines.coordinator / f".selfadapt/runs/{name}.json").read_text())
        assert record["stage"] == name
        assert record["seconds"] > 0


def test_a_second_run_runs_and_moves_nothing(machines: Machines, story: tuple[list[str], str]) -> None:
    def moved() -> dict[str, int]:
        return {log.name: log.stat().st_mtime_ns for log in (machines.coordinator / ".selfadapt/logs").glob("*.log")}

    before, stood = stored(machines.remote), moved()
    said, _ = (process := machines.start_run(machines.case.away[-1])).communicate(timeout=900)
    assert process.returncode == 0, said
    lines = [line for line in said.splitlines() if line.startswith(("·", "="))]
    assert lines and all(" unchanged " in line for line in lines), said
    assert (stored(machines.remote), moved()) == (before, stood)


def test_a_run_cancelled_in_the_ui_leaves_nothing_at_work(machines: Machines, story: tuple[list[str], str]) -> None:
    left, name = "two" if story[1] == "one" else "one", machines.case.endless
    params = machines.coordinator / "params.yaml"
    params.write_text(params.read_text().replace(*machines.case.edit))
    log = machines.folder(left) / f".selfadapt/logs/{name}.log"
    log.unlink(missing_ok=True)
    process = machines.start_run(name)
    until(lambda: log.exists() and "Running" in log.read_text(), seconds=900)
    runs = machines.ask("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    (run,) = [run for run in runs if run["name"] == f"up to {name}"]
    machines.ask(f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    worker = machines.workers[left].pid
    # Within 10 s where the machine is not busy: 2 to be heard, 5 at most to clean up.
    until(lambda: [one.pid for one in at_work(machines.folder(left))] == [worker], seconds=100)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"= {name} failed interrupted" in said
    (run,) = machines.ask("flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert run["state_type"] == "CANCELLED"


def test_with_one_cache_nothing_is_pushed(machines: Machines, reference: Path, tmp_path: Path) -> None:
    """A worker on this machine, in a folder that the run makes."""
    folder, remote, name = tmp_path / "project", tmp_path / "remote", machines.case.shared
    copy(reference, folder)
    without(folder, {name, *machines.case.away})
    dvc(folder, "remote", "add", "--default", "store", str(remote))
    process = machines.start_run(name, on="dask", folder=folder)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert f"= {name} done" in said
    assert not stored(remote)
    ours, theirs = stages(folder), stages(reference)
    assert name in ours
    assert ours == {stage: theirs[stage] for stage in ours}
    assert all((folder / out["path"]).exists() for out in ours[name]["outs"])
    assert (folder / f".selfadapt/runs/{name}.json").is_file()
    until(lambda: not at_work(folder) and not at_work(folder / ".selfadapt/machines/1"), seconds=100)
