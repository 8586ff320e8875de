"""The stages of ``dvc.yaml`` as they are under some settings: what each is called with, reads and writes.

DVC resolves them, in a folder of its own that holds nothing but the graph and the settings; nothing is run.
"""

import importlib
import inspect
import logging
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.config import Section, read_params
from pipeline.core.errors import UserError
from pipeline.flow.plan import update, walked

RUNNER = ["python", "-m", "pipeline.flow"]  # what every command begins with


@dataclass(frozen=True)
class Stage:
    """One stage, e.g. ``train_svf@sums-0``.

    command: the words of its command line. deps, outs: paths. params: the places in params.yaml it depends on, the
    empty one where it depends on the whole file (which dvc.yaml says among its deps).
    """

    name: str
    command: tuple[str, ...]
    deps: frozenset[str]
    outs: frozenset[str]
    params: frozenset[str]

    @property
    def entry(self) -> str:
        """Its entry in dvc.yaml: the name without the key."""
        return self.name.partition("@")[0]

    @property
    def module(self) -> str:
        """The module of ``stages`` that it runs. Entries that do the same to another base model share one."""
        return self.command[len(RUNNER)].partition("@")[0]

    @property
    def record(self) -> str:
        """The name that its run record has."""
        return self.command[len(RUNNER)]

    @property
    def arguments(self) -> dict[str, list[str]]:
        """The values after each flag of the command, the flag spelled as the parameter of ``run``."""
        values: dict[str, list[str]] = {}
        current: list[str] = []
        for word in self.command[len(RUNNER) + 1 :]:
            if word.startswith("--"):
                current = values.setdefault(word[2:].replace("-", "_"), [])
            else:
                current.append(word)
        return values


def resolve(params: Path, graph: Path = Path("dvc.yaml")) -> list[Stage]:
    """All stages of ``graph`` as they are planned by ``params``. UserError if DVC cannot make sense of them."""
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    if not graph.is_file():
        raise UserError(f"expected the graph in {graph}, which is not there; run this in the project's folder")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(graph, folder / "dvc.yaml")
        shutil.copyfile(params, folder / "params.yaml")
        if walked(graph):
            update(params, folder / "plan.yaml")
        try:
            with Repo.init(str(folder), no_scm=True) as repo:
                stages = []
                for stage in repo.index.stages:
                    files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
                    settings = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
                    paths = {dep.def_path for dep in files}
                    stages.append(
                        Stage(
                            name=stage.name,
                            command=tuple(shlex.split(stage.cmd)),
                            deps=frozenset(paths),
                            outs=frozenset(out.def_path for out in stage.outs),
                            params=frozenset(place for dep in settings for place in dep.params)
                            | ({""} if "params.yaml" in paths else frozenset()),
                        )
                    )
                repo.index.graph.nodes()  # raises for cycles and for outputs that overlap
        except DvcException as error:
            reason = " ".join(str(error.__cause__ or error).split()).replace(f"{folder}/", "")
            raise UserError(
                f"expected a graph that DVC can resolve with {params} in {graph}, got: {reason}; correct it"
            ) from None
    return sorted(stages, key=lambda stage: stage.name)


def kinds(stage: Stage) -> dict[str, type[Section]]:
    """The sections of params.yaml that a stage's ``run`` takes, by parameter."""
    run = importlib.import_module(f"stages.{stage.module}").run
    taken = {key: parameter.annotation for key, parameter in inspect.signature(run).parameters.items()}
    return {key: kind for key, kind in taken.items() if isinstance(kind, type) and issubclass(kind, Section)}


def plain_arguments(stage: Stage) -> dict[str, str]:
    """A stage's arguments as one text each, as its sections are found by."""
    return {key: " ".join(values) for key, values in stage.arguments.items()}


PLANNED = ("tables", "rows", "heads", "skill_reports", "benchmark_reports")  # read, strictly, by the plan itself


def problems(params: Path, added: Sequence[str] = ()) -> list[str]:
    """What is wrong with the settings ``params`` for the stages of ``dvc.yaml``, a sentence each.

    added: places that are new in them, which some stage has to read.
    """
    try:
        values = read_params(params)
        stages = resolve(params)
    except UserError as error:
        return [str(error)]
    wrong: dict[str, None] = {}  # in order, each once
    for stage in stages:
        try:
            for kind in kinds(stage).values():
                kind.read(values, plain_arguments(stage))
        except ModuleNotFoundError as error:
            wrong[f"{stage.name}: expected the module {error.name}, which is not there; write it"] = None
        except KeyError as error:
            wrong[f"{stage.name}: expected --{error.args[0]} in its cmd, which names its settings; add it"] = None
        except UserError as error:
            wrong[str(error)] = None
    read = {place for stage in stages for place in stage.params if place}
    for place in added:
        known = any(place == one or place.startswith(f"{one}.") or one.startswith(f"{place}.") for one in read)
        if not known and place.partition(".")[0] not in PLANNED:
            wrong[f"params.yaml: '{place}' is not there, and no stage reads it; correct its name"] = None
    return list(wrong)
