"""Where a run's workers are: on this machine, at the address of Dask's scheduler, or in jobs of SLURM."""

import contextlib
import importlib.util
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.reading import read_yaml
from pipeline.flow import gpus
from pipeline.flow.children import Children

FOLDERS = Path(".selfadapt/machines")
PACKAGES = ("pipeline", "stages")  # the code that stages run
ADDRESSES = ("tcp://", "tls://")
SLURM = "slurm:"
INSTALL = {"prefect_dask": "dask", "distributed": "dask", "dask_jobqueue": "slurm"}


def check(on: str) -> None:
    """UserError where ``on`` names no machines, or what it needs is not installed."""
    if not (on == "dask" or on.startswith((*ADDRESSES, SLURM))):
        raise UserError(f"expected --on dask, --on tcp://HOST:PORT or --on slurm:FILE, got --on {on}; name one of them")
    needed = ["prefect_dask", "distributed", *(["dask_jobqueue"] if on.startswith(SLURM) else [])]
    for module in needed:
        if not is_installed(module):
            raise UserError(
                f"expected {module} for --on {on}, which is not installed; run 'pip install "
                f"selfadapt[{INSTALL[module]}]'"
            )
    if on.startswith(SLURM):
        if shutil.which("sbatch") is None:
            raise UserError(f"expected sbatch for --on {on}, which is not there; run this where SLURM takes jobs")
        slurm_options(Path(on.removeprefix(SLURM)))


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def scheduler(on: str, jobs: int, children: Children, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a scheduler, started with ``jobs`` workers where ``on`` is no address.

    children: where workers on this machine are started. environment: theirs.
    """
    if on.startswith(ADDRESSES):
        yield on
    elif on.startswith(SLURM):
        with _slurm(slurm_options(Path(on.removeprefix(SLURM))), jobs) as address:
            yield address
    else:
        with _here(jobs, children, environment) as address:
            yield address


@contextlib.contextmanager
def _here(jobs: int, children: Children, environment: Mapping[str, str]) -> Iterator[str]:
    """A scheduler in this process, and workers on this machine, each in a folder of its own."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        names = gpus.here()
        for number in range(1, jobs + 1):
            folder = make_folder(str(number))
            dask = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--name", str(number)]
            dask += ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--local-directory", ".selfadapt/dask"]
            # In its folder, whose code it runs.
            command = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *dask]
            threading.Thread(
                target=children.run,
                args=(command,),
                kwargs={
                    "log": folder / "worker.log",
                    "environment": {**environment, **_share(names, number, jobs)},
                    "waiting": lambda process: True,
                },
                daemon=True,
            ).start()
        try:
            yield address
        finally:
            children.end()


def _share(names: Sequence[str], number: int, jobs: int) -> dict[str, str]:
    """The GPUs of worker ``number`` of ``jobs`` on this machine; nothing to set where there are none."""
    return {gpus.VISIBLE: ",".join(names[number - 1 :: jobs])} if names else {}


@contextlib.contextmanager
def _slurm(options: Mapping[str, Any], jobs: int) -> Iterator[str]:
    """A scheduler in this process, and ``jobs`` workers, each a job of SLURM in a folder of its own on this project's
    file system."""
    from dask_jobqueue import SLURMCluster

    here = Path.cwd()
    prologue = [
        *options.get("job_script_prologue", []),
        f"cd {shlex.quote(str(here))}",
        f'cd "$({sys.executable} -m pipeline.flow.machines.places "slurm-$SLURM_JOB_ID")"',
    ]
    logs = FOLDERS / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"cores": 1, "python": sys.executable, "log_directory": str(logs.resolve())} | dict(options)
    given["scheduler_options"] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"} | given.get(
        "scheduler_options", {}
    )
    extra = [*given.pop("worker_extra_args", []), "--no-dashboard", "--local-directory", ".selfadapt/dask"]
    with SLURMCluster(
        **given | {"processes": 1, "job_script_prologue": prologue, "worker_extra_args": extra}
    ) as cluster:
        cluster.scale(jobs=jobs)
        try:
            yield cluster.scheduler_address
        finally:
            cluster.scale(jobs=0)
            for folder in FOLDERS.glob("slurm-*"):
                shutil.rmtree(folder, ignore_errors=True)


def slurm_options(path: Path) -> dict[str, Any]:
    """The options of dask_jobqueue's SLURMCluster, of a YAML file. UserError where they are not a mapping."""
    options = read_yaml(path)
    if not isinstance(options, dict) or "memory" not in options:
        raise UserError(
            f"expected {path} to say what a job asks for, at least its memory, e.g. 'memory: 16GB' (the options of "
            f"dask_jobqueue.SLURMCluster), got {options if not isinstance(options, dict) else sorted(options)}; add it"
        )
    return options


def make_folder(name: str) -> Path:
    """A worker's folder on this project's file system: the code as it is now, and the project's cache."""
    from dvc.repo import Repo

    folder = FOLDERS / name
    folder.mkdir(parents=True, exist_ok=True)
    for part in PACKAGES:  # all else comes with each stage
        shutil.rmtree(folder / part, ignore_errors=True)
        shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile("dvc.yaml", folder / "dvc.yaml")
    with Repo() as repo:
        cache = Path(repo.cache.local.path).parents[1]
    (folder / ".dvc").mkdir(exist_ok=True)
    # Links, as far as the file system has them: a base model need not be copied for each worker.
    (folder / ".dvc/config").write_text(
        "[core]\n    analytics = false\n    autostage = false\n    no_scm = true\n"
        f"[cache]\n    dir = {cache}\n    type = reflink,hardlink,symlink,copy\n",
        encoding="utf-8",
    )
    (folder / ".dvcignore").write_text("__pycache__\n.selfadapt\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    print(make_folder(sys.argv[1]))
