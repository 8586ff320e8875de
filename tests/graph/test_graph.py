"""Every stage's code, paths and settings stand in dvc.yaml, under every profile: else something stale survives."""

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.core.stage import In, Out
from pipeline.flow.stages import RUNNER, Stage, problems, resolve, sections
from tests.graph.code import ROOT, closure, imports, is_only_a_docstring, name_of

PROFILES = sorted(path.stem for path in (ROOT / "pipeline/profiles").glob("*.yaml"))
CODE = ("pipeline/", "stages/")


@cache
def stages(profile: str) -> list[Stage]:
    return resolve(ROOT / "pipeline/profiles" / f"{profile}.yaml", ROOT / "dvc.yaml")


def modules() -> list[str]:
    """The stages' names, from the graph's text: a graph that does not resolve fails its tests by name, too."""
    import yaml

    return list(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


CASES = [(profile, module) for profile in PROFILES for module in modules()]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def instances(request: pytest.FixtureRequest) -> list[Stage]:
    """All stages made by one entry of dvc.yaml under one profile."""
    profile, module = request.param
    return [stage for stage in stages(profile) if stage.entry == module]


def covered(path: str, names: frozenset[str]) -> bool:
    """Whether a path, or a folder it stands in, is among ``names``."""
    return any(path == name or path.startswith(f"{name}/") for name in names)


def reachable(stage: Stage) -> set[Path]:
    """The files of ours that a stage can reach, its dynamic imports resolved by what its deps name."""
    start = ROOT / "stages" / f"{stage.module}.py"
    found = closure(start)
    while True:
        more = set()
        for file in found:
            for prefix in imports(file).dynamic:
                folder = prefix.replace(".", "/")
                named = [dep for dep in stage.deps if dep.startswith(f"{folder}/")]
                if folder in stage.deps:  # whatever is there
                    named += [str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("[a-z]*.py")]
                # The core imports a method by its name when it is asked to, or loads an adapter, and no other time.
                loads = any({"load_adapter", "method_module"} & imports(user).names for user in found)
                if prefix != "stages" and (file.parent != ROOT / "pipeline/core" or loads):
                    assert named, f"{stage.name}: {name_of(file)} imports from {prefix}, but no dep names a file there"
                for dep in named:
                    path = ROOT / dep
                    more |= closure(path / "__init__.py" if path.is_dir() else path)
        if more <= found:
            return found
        found |= more


def test_every_file_a_stage_can_reach_stands_in_its_deps(instances: list[Stage]) -> None:
    for stage in instances:
        files = [file for file in reachable(stage) if not (file.name == "__init__.py" and is_only_a_docstring(file))]
        missing = [path for file in files if not covered(path := str(file.relative_to(ROOT)), stage.deps)]
        assert not missing, f"{stage.name}: add to its deps: {sorted(missing)}"


def test_every_code_dep_exists_and_is_reached(instances: list[Stage]) -> None:
    # By one of the stages at least, under one profile: what the one method needs, a cell of another names all the same.
    entries = {stage.entry for stage in instances}
    alike = [stage for profile in PROFILES for stage in stages(profile) if stage.entry in entries]
    reached = {str(file.relative_to(ROOT)) for stage in alike for file in reachable(stage)}
    for dep in {dep for stage in instances for dep in stage.deps if dep.startswith(CODE)}:
        assert (ROOT / dep).exists(), f"{dep} is not there"
        used = any(covered(file, frozenset([dep])) for file in reached)
        assert used, f"{dep} is never imported: what changes there would rerun the stage for nothing"


def kinds(stage: Stage) -> dict[str, Any]:
    run = importlib.import_module(f"stages.{stage.module}").run
    return {key: parameter.annotation for key, parameter in inspect.signature(run).parameters.items()}


def test_commands_call_their_stage_with_what_it_takes(instances: list[Stage]) -> None:
    for stage in instances:
        assert list(stage.command[:3]) == RUNNER
        assert stage.command[3].partition("@")[2] == stage.name.partition("@")[2]
        taken = {
            key for key, kind in kinds(stage).items() if kind in (str, int, In, Out) or {In, Out} & set(get_args(kind))
        }
        assert set(stage.arguments) == taken, f"{stage.name}: flags of cmd against parameters of run"


def test_paths_of_the_command_are_deps_and_outs_and_the_other_way_round(instances: list[Stage]) -> None:
    for stage in instances:
        read, written = set(), set()
        for key, kind in kinds(stage).items():
            if In in (kind, *get_args(kind)):
                read |= set(stage.arguments[key])
            elif Out in (kind, *get_args(kind)):
                written |= set(stage.arguments[key])
        unnamed = sorted(path for path in read if not covered(path, stage.deps))
        assert not unnamed, f"{stage.name}: read, but not in deps: {unnamed}"
        assert written == set(stage.outs), f"{stage.name}: outs against what cmd writes"
        data = {dep for dep in stage.deps if not dep.startswith(CODE)}
        unread = sorted(dep for dep in data if not any(covered(path, frozenset([dep])) for path in read))
        assert not unread, f"{stage.name}: in deps, but not in cmd: {unread}"


def test_every_setting_a_stage_reads_stands_in_its_params(instances: list[Stage]) -> None:
    for stage in instances:
        read = sections(stage)
        whole = read.pop("", None)  # a section that is the whole file reads what it has fields for
        for place in [*read, *(whole.model_fields if whole else ())]:
            named = any(name in ("", place) or place.startswith(f"{name}.") for name in stage.params)
            assert named, f"{stage.name}: reads {place}; its params name {sorted(stage.params)}"


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_fit_every_stage(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert problems(ROOT / "pipeline/profiles" / f"{profile}.yaml") == []


def test_the_settings_are_a_profile() -> None:
    active = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert active in [(ROOT / "pipeline/profiles" / f"{name}.yaml").read_text(encoding="utf-8") for name in PROFILES]
