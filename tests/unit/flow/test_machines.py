"""Several machines, the parts that need no worker: where they are, what is merged, moved and kept."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc.repo import Repo

from pipeline.core.errors import UserError
from pipeline.flow import repro
from pipeline.flow.machines import checkpoints, places, record, worker
from pipeline.flow.run import read_graph

needs_dask = pytest.mark.skipif(
    not places.is_installed("prefect_dask"), reason="several machines need the extra selfadapt[dask]"
)
GRAPH = """
stages:
  plan: {cmd: echo 1 > plan, deps: [settings], outs: [plan]}
  code: {cmd: mkdir code; echo 1 > code/a; echo 1 > code/b, deps: [source, plan], outs: [code]}
  make: {cmd: mkdir -p made; cp code/a made/a, deps: [code/a], outs: [made/a]}
  own: {cmd: cp mine made/own, deps: [code/b, mine], outs: [made/own]}
  report: {cmd: cp made/a page, deps: [made], outs: [{page: {cache: false}}]}
  table: {cmd: cp made/a table, deps: [made/a], outs: [{table: {cache: false}}]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of DVC's, with a remote, in the current folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with Repo.init(no_scm=True) as repo, repo.config.edit() as config:
        config["core"]["remote"] = "store"
        config["remote"]["store"] = {"url": str(tmp_path / "remote")}
    Path("dvc.yaml").write_text(GRAPH)
    for name in ("settings", "source", "mine"):
        Path(name).write_text("1\n")
    return folder


def repro_all() -> None:
    with Repo() as repo:
        repo.reproduce()


def test_what_reads_the_folders_own_files_or_is_not_kept_stays(project: Path) -> None:
    assert read_graph([]).apart == {"make"}


def test_what_is_known_and_missing_is_brought_back_instead_of_run(project: Path) -> None:
    repro_all()
    with Repo() as repo:
        repo.push()
    for name in ("plan", "made/a", "made/own"):
        Path(name).unlink()
    assert read_graph([], restore=True).changed == frozenset()
    assert Path("made/a").read_text() == "1\n"


def test_an_entry_is_merged_as_dvc_writes_it(project: Path) -> None:
    repro_all()
    whole = Path("dvc.lock").read_text()
    entries = {stage: repro.entry_of(whole, stage) for stage in ("plan", "code", "make", "own", "report", "table")}
    order = [line.strip(" :\n") for line in whole.splitlines() if line.startswith("  ") and line[2] != " "]
    Path("dvc.lock").unlink()
    for stage in order:
        record.merge(stage, entries[stage])
    assert Path("dvc.lock").read_text() == whole
    record.merge("make", entries["make"].replace("cp code/a", "cp code/b"))
    assert Path("dvc.lock").read_text() == whole.replace("cp code/a", "cp code/b")
    with pytest.raises(UserError, match=r"expected the record of make as DVC writes it"):
        record.merge("make", "")


def test_a_stage_away_is_fetched_for_run_and_pushed(project: Path, tmp_path: Path) -> None:
    """In another clone: what it needs comes from the remote, what it makes goes there."""
    with Repo() as repo:
        repo.reproduce("code")
        repo.push(targets=["code"])
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", ".", str(other)], check=True)
    for name in ("code", ".dvc/cache"):
        subprocess.run(["rm", "-rf", str(other / name)], check=True)
    command = [sys.executable, "-m", "pipeline.flow.machines.away", "make", "code"]
    done = subprocess.run(command, cwd=other, env={**os.environ, "PYTHONPATH": places_root()}, capture_output=True)
    assert done.returncode == 0, done.stdout
    record.merge("make", repro.entry_of((other / "dvc.lock").read_text(), "make"))
    assert "make" not in read_graph(["make"], restore=True).changed
    assert Path("made/a").read_text() == "1\n"


def places_root() -> str:
    return str(Path(places.__file__).resolve().parents[3])


def test_a_checkpoint_goes_on_elsewhere(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PUSH_SECONDS", 0.01)
    here = checkpoints.HERE / "0123/part/last.safetensors"
    with checkpoints.Kept("train@a") as kept:
        here.parent.mkdir(parents=True)
        here.write_bytes(b"step 3")
        there = tmp_path / "remote/selfadapt-checkpoints/train%40a/0123/part/last.safetensors"
        for _ in range(500):
            if there.exists():
                break
            kept._over.wait(0.01)
    assert there.read_bytes() == b"step 3"
    here.unlink()
    with checkpoints.Kept("train@a") as kept:
        assert here.read_bytes() == b"step 3"
        kept.done = True
    assert not there.exists()


@pytest.mark.parametrize("on", ["dusk", "http://a", "tcp:/a", "slurm"])
def test_machines_that_are_none_are_one_sentence(on: str) -> None:
    with pytest.raises(UserError, match=f"expected --on dask, --on tcp://HOST:PORT or --on slurm:FILE, got --on {on}"):
        places.check(on)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "is_installed", lambda module: module != "prefect_dask")
    with pytest.raises(UserError, match=r"run 'pip install selfadapt\[dask\]'"):
        places.check("dask")
    monkeypatch.setattr(places, "is_installed", lambda module: module != "dask_jobqueue")
    with pytest.raises(UserError, match=r"run 'pip install selfadapt\[slurm\]'"):
        places.check("slurm:file.yaml")


def test_slurm_needs_to_know_what_a_job_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text("memory: 16GB\nqueue: gpu\n")
    assert places.slurm_options(path) == {"memory": "16GB", "queue": "gpu"}
    path.write_text("queue: gpu\n")
    with pytest.raises(UserError, match=r"expected .* at least its memory"):
        places.slurm_options(path)


def test_a_folder_is_for_one_worker_and_not_for_people(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_held", {})
    worker._take_folder(project)
    worker._take_folder(project)  # by the same worker, for another run
    again = "from pathlib import Path; from pipeline.flow.machines import worker; worker._take_folder(Path.cwd())"
    environment = {**os.environ, "PYTHONPATH": places_root()}
    taken = subprocess.run([sys.executable, "-c", again], env=environment, capture_output=True, text=True)
    assert "expected a clone of its own, got one with another worker in it" in taken.stderr
    lived_in = tmp_path / "lived in"
    lived_in.mkdir()
    monkeypatch.chdir(lived_in)
    Path("params.yaml").write_text("seeds: [0]\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    Path("params.yaml").write_text("seeds: [1]\n")
    with pytest.raises(UserError, match=r"expected a clone that nobody works in, got one with changes of params.yaml"):
        worker._take_folder(lived_in)


def test_checkpoints_lie_beside_a_shared_cache(project: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    Path(".selfadapt").mkdir()
    worker._share_checkpoints(cache)
    worker._share_checkpoints(cache)
    (Path(".selfadapt/checkpoints") / "a").write_text("b")
    assert (cache / "selfadapt-checkpoints/a").read_text() == "b"


def test_a_stage_is_wanted_as_long_as_dask_runs_it() -> None:
    def seen(state: str, status: str = "running") -> Any:
        tasks = {"key": SimpleNamespace(state=state)}
        return SimpleNamespace(state=SimpleNamespace(tasks=tasks), status=SimpleNamespace(name=status))

    assert worker._wanted(seen("executing"), "key")
    assert not worker._wanted(seen("cancelled"), "key")
    assert not worker._wanted(seen("executing"), "forgotten")
    assert not worker._wanted(seen("executing", "closing"), "key")


SBATCH = """#!/bin/sh
# Takes a job as SLURM does, which keeps a copy of it, and runs it at once.
cp "$1" job.sh
SLURM_JOB_ID=7 setsid sh job.sh > job.log 2>&1 &
echo $! > job.pid
echo "Submitted batch job 7"
"""
SCANCEL = """#!/bin/sh
kill -TERM -- "-$(cat job.pid)"
"""


@needs_dask
def test_a_job_of_slurm_is_a_worker_in_a_folder_of_its_own(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ``sbatch`` that runs what it is given, as far as such a one shows it."""
    pytest.importorskip("dask_jobqueue", reason="jobs of SLURM need the extra selfadapt[slurm]")
    from distributed import Client

    from pipeline.flow.children import Children

    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{places_root()}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for part in places.PACKAGES:
        (project / part).mkdir()
    options = tmp_path / "slurm.yaml"
    options.write_text("memory: 1GB\ninterface: lo\n")
    places.check(f"slurm:{options}")
    with (
        places.scheduler(f"slurm:{options}", 1, Children(), os.environ) as address,
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(1, timeout=120)
        (folder,) = client.run(os.getcwd).values()
        assert Path(folder) == project / ".selfadapt/machines/slurm-7"
        (cache,) = client.run(lambda: Path(".dvc/config").read_text()).values()
        assert f"dir = {project / '.dvc/cache'}" in cache
    assert not (project / ".selfadapt/machines/slurm-7").exists()
