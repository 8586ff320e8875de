"""From a command line to a stage's ``run`` and back.

A stage is a module of ``stages`` with one function, ``run``, whose keyword-only parameters say everything:

    def run(*, task: str, seed: int, train: In, svf: Training, expert: Out, checkpoints: Checkpoints) -> dict

``str`` and ``int`` are arguments; ``In`` and ``Out`` are paths that ``dvc.yaml`` spells (``list[In]``: several);
a ``Section`` is read from ``params.yaml``; ``Checkpoints`` is made here. What ``run`` returns are the stage's
metrics, shown in the Prefect UI and kept in the run record.

The run record, ``.selfadapt/runs/<name>.json``, holds what differs between two runs of the same thing (seconds,
memory, host): only the report reads it, and nothing is invalidated by it.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pipeline.core import processes
from pipeline.core.artifacts import digest, write_json
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.code import FAMILIES, Code
from pipeline.core.config import Section, read_params
from pipeline.core.errors import UserError, out_of_memory, sentence
from pipeline.core.progress import finished_steps, written_anywhere

STATE = Path(".selfadapt")  # run records and checkpoints: beside the artifacts, never in git or DVC
In = Annotated[Path, "in"]
Out = Annotated[Path, "out"]


@dataclass(frozen=True)
class Call:
    """A stage with everything it is called with.

    name: as DVC addresses it, e.g. ``train_svf@sums-0``. arguments: what ``run`` receives.
    """

    name: str
    run: Callable[..., Mapping[str, Any]]
    arguments: dict[str, Any]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]

    @property
    def plain_arguments(self) -> dict[str, Any]:
        """The arguments as JSON values: what a person wants to see of a run."""
        return {key: _plain(value) for key, value in self.arguments.items() if not isinstance(value, Checkpoints)}


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def parse(name: str, argv: Sequence[str]) -> Call:
    """Read a stage's command line: ``name`` is ``<stage>`` or ``<stage>@<key>``, as DVC addresses it."""
    module = name.partition("@")[0]
    try:
        run = importlib.import_module(f"stages.{module}").run
    except ModuleNotFoundError as error:
        if error.name != f"stages.{module}":
            raise
        known = sorted(path.stem for path in Path("stages").glob("[a-z]*.py"))
        raise UserError(f"expected a stage, got '{module}'; the stages are: {', '.join(known)}") from None
    parser = argparse.ArgumentParser(prog=f"python -m stages.{module}", description=inspect.getdoc(run))
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the settings (default: %(default)s)")
    kinds = {key: parameter.annotation for key, parameter in inspect.signature(run).parameters.items()}
    for key, kind in kinds.items():
        flag = f"--{key.replace('_', '-')}"
        if kind in (str, int):
            parser.add_argument(flag, type=kind, required=True)
        elif kind in (In, Out):
            parser.add_argument(flag, type=Path, required=True, metavar="PATH")
        elif get_origin(kind) is list and get_args(kind)[0] in (In, Out):
            parser.add_argument(flag, type=Path, nargs="+", required=True, metavar="PATH")
    given = vars(parser.parse_args(argv))
    processes.command[:] = [name, *argv]
    params = read_params(given.pop("params"))
    plain = {key: str(value) for key, value in given.items()}
    arguments = dict(given)
    inputs: list[Path] = []
    outputs: list[Path] = []
    for key, kind in kinds.items():
        if isinstance(kind, type) and issubclass(kind, Section):
            arguments[key] = kind.read(params, plain)
        elif In in (kind, *get_args(kind)):
            inputs += [given[key]] if kind == In else given[key]
        elif Out in (kind, *get_args(kind)):
            outputs += [given[key]] if kind == Out else given[key]
    for path in inputs:
        if not path.exists():
            raise UserError(f"{name}: expected the input {path}, which is not there; run 'dvc repro {name}'")
        if not path.is_file() and not path.is_dir():  # a pipe: whoever opens it waits for ever
            raise UserError(f"{name}: expected the input {path} to be a file, got what is none; remove it")
    for key, kind in kinds.items():
        if kind is Checkpoints:
            arguments[key] = Checkpoints(STATE / "checkpoints" / _fingerprint(name, arguments, inputs, outputs))
    return Call(name, run, arguments, tuple(inputs), tuple(outputs))


def _fingerprint(name: str, arguments: Mapping[str, Any], inputs: list[Path], outputs: list[Path]) -> str:
    """A hash of everything that determines a run: settings, bytes of the inputs, code, versions."""
    skipped = {str(path) for path in (*inputs, *outputs)}
    settings = {key: _plain(value) for key, value in arguments.items() if str(value) not in skipped}
    parts = [
        name,
        json.dumps(settings, sort_keys=True, default=str),
        *(importlib.metadata.version(library) for library in ("torch", "transformers")),
        *(digest(path) for path in inputs),
        *_fingerprints(name.partition("@")[0], [value for value in arguments.values() if isinstance(value, str)]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _fingerprints(stage: str, arguments: Sequence[str]) -> list[str]:
    """Of the stage's code, and of each unit that one of its arguments names: its task, its method, its strategy."""
    code = Code()
    named = [
        f"{FAMILIES[family]}.{value}" for family in FAMILIES for value in arguments if value in code.members(family)
    ]
    return [code.fingerprint(module) for module in (f"stages.{stage}", *named)]


def execute(call: Call) -> Mapping[str, Any]:
    """Run a stage, record the run, and return its metrics."""
    started, start = time.time(), time.perf_counter()
    finished_steps.clear()
    try:
        metrics = dict(call.run(**call.arguments))
    except Exception as error:
        if said := out_of_memory(error):
            raise said from None
        raise
    for path in call.outputs:
        if not path.exists():
            raise RuntimeError(f"{call.name} ended without writing {path}")
    for value in call.arguments.values():
        if isinstance(value, Checkpoints):
            value.clear()
    record = {
        "stage": call.name,
        "arguments": call.plain_arguments,
        "metrics": metrics,
        "started_unix_seconds": started,
        "seconds": time.perf_counter() - start,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "steps": [{"name": name, "seconds": seconds} for name, seconds in finished_steps],
        "host": {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
    }
    write_json(STATE / "runs" / f"{call.name}.json", record)
    return metrics


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m stages.<name> …``: run a stage bare, without Prefect and DVC."""
    argv = sys.argv[1:] if argv is None else argv
    # A terminated stage unwinds like an interrupted one, so that temporary files and child processes go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    written_anywhere()
    name = Path(sys.argv[0]).stem
    try:
        execute(parse(name, argv))
    except Exception as error:
        if said := sentence(error):
            sys.exit(f"error: {said}")
        raise
