"""What Dask calls in a worker's process, which was started in the worker's folder: a look at it, and one stage."""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pipeline.core.artifacts import read_json, write_text
from pipeline.core.code import Code
from pipeline.core.config import SHARE
from pipeline.core.errors import UserError
from pipeline.flow import gpus, identity, lock, server
from pipeline.flow.children import Children
from pipeline.flow.machines.checkpoints import Kept
from pipeline.flow.machines.places import PACKAGES
from pipeline.flow.machines.record import RUNS, has_remote
from pipeline.flow.repro import entry_of
from pipeline.flow.run import LOGS, cores, run_by_dvc

AWAY = "pipeline.flow.machines.away"
STATE = Path(".selfadapt")
SENT = ("dvc.yaml", "params.yaml", "plan.yaml", "dvc.lock")  # what comes with each stage
LIBRARIES = ("torch", "transformers", "peft", "numpy", "dvc")  # whose version may show in what a stage writes
LOOK_SECONDS = 0.5  # between two looks at whether Dask still wants a stage
PATIENCE = 3  # looks at whether the Prefect server answers, which may be busy
UNWIND_SECONDS = 5.0  # for a stage that Dask no longer wants to clean up, before it is killed
SAID = 200_000  # characters of a stage's words that are sent back
_one = threading.Lock()  # one stage at a time in this folder, of whatever run
_held: dict[Path, IO[str]] = {}  # the lock on this worker's folder, for as long as the process lives


# ---- what is looked at -------------------------------------------------------------------------------------------


def sources() -> str:
    """A hash of all files of the code, as they are."""
    files = sorted(path for part in PACKAGES for path in Path(part).rglob("*") if "__pycache__" not in path.parts)
    listed = [f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files if path.is_file()]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


def fingerprints() -> dict[str, str]:
    """What decides the bytes that stages write: a hash for each unit of code."""
    units = Code(Path.cwd()).units()
    return {unit: hashlib.sha256(text.encode()).hexdigest()[:16] for unit, text in units.items()}


def versions() -> dict[str, str]:
    """The versions of libraries that show in what stages write."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


async def look(token: str, api: str) -> dict[str, Any]:
    """What the coordinator has to know of this worker; ``refused`` says why it may not run stages, or is empty.

    token: the name of a file that the coordinator has put into its folder's state and into its cache. api: the address
    of the Prefect server.
    """
    return await asyncio.to_thread(_look, token, api)


def _look(token: str, api: str) -> dict[str, Any]:
    found: dict[str, Any] = {"folder": str(Path.cwd()), "refused": ""}
    try:
        found["shared"] = _checked(token)
    except UserError as error:
        return found | {"refused": str(error)}
    found |= {"recorded": any(server.healthy(api) for _ in range(PATIENCE)), "gpus": len(gpus.here())}
    return found | {"sources": sources(), "versions": versions()}


async def look_closer() -> dict[str, str]:
    """The ``fingerprints`` of this worker's code."""
    return await asyncio.to_thread(fingerprints)


def _checked(token: str) -> bool:
    """Whether this worker's cache is the coordinator's; UserError where it may not run stages."""
    if (STATE / token).exists():
        raise UserError("expected a clone of its own, got the folder that the run was started in; start it in another")
    if not Path("dvc.yaml").is_file() or not Path(".dvc").is_dir():
        raise UserError("expected a clone of the project, got another folder; start the worker in a clone")
    _take_folder(Path.cwd())
    return _reaches_cache(token)


def _take_folder(here: Path) -> None:
    """Keep other workers out of this one's folder, and this one out of a folder that somebody works in."""
    if here in _held:
        return
    STATE.mkdir(exist_ok=True)
    file = (STATE / "worker").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError("expected a clone of its own, got one with another worker in it; make one more") from None
    if not file.tell():  # no worker's folder so far
        changed = subprocess.run(["git", "status", "--porcelain", "--", *SENT], capture_output=True, text=True)
        if names := [line[3:] for line in changed.stdout.splitlines() if not line.startswith("??")]:
            raise UserError(
                f"expected a clone that nobody works in, got one with changes of {', '.join(names)}, which would be "
                "written over; start the worker in another clone"
            )
        file.write("This folder belongs to a worker: its settings and its dvc.lock are those of the last run.\n")
        file.flush()
    _held[here] = file


def _reaches_cache(token: str) -> bool:
    """Whether the cache is the coordinator's; UserError if it is not and there is no remote either."""
    from dvc.repo import Repo

    identity.complete()
    with Repo() as repo:
        cache = Path(repo.cache.local.path).parents[1]
        if (cache / token).exists():
            _share_checkpoints(cache)
            return True
        if not has_remote(repo):
            raise UserError(
                "expected DVC's cache to be the one of the run, or a remote, got neither; set one of them in the clone "
                "('dvc cache dir', 'dvc remote add --default')"
            )
    return False


def _share_checkpoints(cache: Path) -> None:
    """Keep checkpoints beside the shared cache, so that any worker can go on where another one was ended."""
    here, there = STATE / "checkpoints", cache / "selfadapt-checkpoints"
    there.mkdir(exist_ok=True)
    if here.is_dir() and not here.is_symlink() and not any(here.iterdir()):
        here.rmdir()
    if not here.exists():
        here.unlink(missing_ok=True)
        here.symlink_to(there)


async def admit(token: str, gpus: int, dask_worker: Any) -> None:
    """Let a worker of Dask's have the stages of one run, one at a time, whatever its number of threads.

    Of the resource ``token`` each stage takes one. Another run looks at the worker anew: the resource is another.
    """
    await dask_worker.set_resources(**resources(token, 1, gpus))


def resources(token: str, stages: int, gpus: int) -> dict[str, int]:
    """What a worker has, or a stage takes, in Dask's terms."""
    return {token: stages, f"{token}-gpus": gpus} if gpus else {token: stages}


# ---- what is run -------------------------------------------------------------------------------------------------


def run_stage(order: Mapping[str, Any], parent: str) -> dict[str, Any]:
    """Run a stage in this folder, for as long as Dask wants it; how it ended, what it said, and its two records.

    order: ``stage``; ``needs``, the stages to fetch the outputs of; ``texts`` of the files SENT; ``shared``, whether
    the cache is; ``api`` of the server that records it; ``beside``, how many workers share this
    machine; ``topic``, to which its start is told. parent: the task run that it is shown under.
    """
    with _one:
        return _run_stage(order, parent)


def _run_stage(order: Mapping[str, Any], parent: str) -> dict[str, Any]:
    from distributed import get_worker

    worker = get_worker()
    stage, start = order["stage"], time.monotonic()
    worker.log_event(order["topic"], {"stage": stage, "worker": worker.name})
    _accept(order["texts"])
    before = _records()
    log = LOGS / f"{stage}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    shared = ["--shared"] if order["shared"] else []
    command = [sys.executable, "-m", AWAY, *shared, stage, *order["needs"]]
    task, children, ended, over = worker.get_current_task(), Children(), threading.Event(), threading.Event()

    def end_when_unwanted() -> None:
        while not over.wait(LOOK_SECONDS):
            if not _wanted(worker, task):
                ended.set()
                children.end(UNWIND_SECONDS)

    watch = threading.Thread(target=end_when_unwanted, daemon=True)
    watch.start()
    try:
        with contextlib.nullcontext() if order["shared"] else Kept(stage) as kept:
            code, said = run_by_dvc(
                children, command, log=log, environment=_environment(order, parent), ending=ended.is_set
            )
            if kept:
                kept.done = code == 0
    finally:
        over.set()
        watch.join()
        children.close()
    records = {name: read_json(RUNS / name) for name, at in _records().items() if before.get(name) != at}
    record = lock.RECORD.read_text(encoding="utf-8") if lock.RECORD.is_file() else ""
    return {
        "code": code,
        "said": said[-SAID:],
        "seconds": time.monotonic() - start,
        "worker": worker.name,
        "entry": entry_of(record, stage) if code == 0 else "",
        "records": records if code == 0 else {},
    }


def _accept(texts: Mapping[str, str]) -> None:
    """Bring the settings and DVC's record in this folder to those of the run."""
    for name in SENT:
        path = Path(name)
        if name not in texts:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_text(encoding="utf-8") != texts[name]:
            write_text(path, texts[name])
    lock.clean()  # a stage may have been killed here


def _wanted(worker: Any, key: str) -> bool:
    """Whether Dask still waits for a task: not once the run is cancelled, or its coordinator or scheduler gone."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state == "executing" and worker.status.name == "running"


def _environment(order: Mapping[str, Any], parent: str) -> dict[str, str]:
    """A stage's environment: the worker's, and where it is recorded."""
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": search}
    environment |= {"PREFECT_API_URL": order["api"], server.PARENT: parent}
    environment.setdefault(SHARE, str(max(1, cores() // order["beside"])))
    return environment


def _records() -> dict[str, int]:
    """The run records in this folder, by the time at which each was written."""
    return {path.name: path.stat().st_mtime_ns for path in RUNS.glob("*.json")}
