"""Every stage's code, paths and settings stand in dvc.yaml, under every profile: else something stale survives."""

import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pipeline.core.code import FAMILIES, Code
from pipeline.core.config import read_params
from pipeline.core.stage import In, Out
from pipeline.flow import profiles
from pipeline.flow.stages import RUNNER, Stage, kinds, plain_arguments, problems, resolve
from tests.graph.code import ROOT

UNITS = "artifacts/code/"
WAITED_FOR = {"plan", "code"}  # what all others wait for, and what depends on source files
code = Code()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profiles as params.yaml has them, a file each."""
    folder = tmp_path_factory.mktemp("profiles")
    for name in profiles.names():
        (folder / f"{name}.yaml").write_text(profiles.text(name), encoding="utf-8")
    return folder


@cache
def resolved(path: Path) -> list[Stage]:
    return resolve(path, ROOT / "dvc.yaml")


@pytest.fixture(params=profiles.names())
def profile(request: pytest.FixtureRequest, settings: Path) -> Path:
    return settings / f"{request.param}.yaml"


def planned(profile: Path) -> Iterator[Stage]:
    """The stages of a profile but those that all others wait for."""
    return (stage for stage in resolved(profile) if stage.entry not in WAITED_FOR)


def covered(path: str, names: frozenset[str]) -> bool:
    """Whether a path, or a folder it stands in, is among ``names``."""
    return any(path == name or path.startswith(f"{name}/") for name in names)


def run_kinds(stage: Stage) -> dict[str, Any]:
    run = importlib.import_module(f"stages.{stage.module}").run
    return {key: parameter.annotation for key, parameter in inspect.signature(run).parameters.items()}


def units(stage: Stage) -> set[str]:
    """The units of code that a stage depends on: ``tasks/sums``; all of a family where it names the folder."""
    named = {dep.removeprefix(UNITS) for dep in stage.deps if dep.startswith(UNITS)}
    whole = {name for name in named if "/" not in name}
    return (named - whole) | {f"{family}/{member}" for family in whole for member in code.members(family)}


def dynamic(unit: str) -> set[str]:
    """The families that a unit of code imports from by names known only at run time."""
    family, name = unit.split("/")
    imported = code.closure(f"{FAMILIES[family]}.{name}", owned=False).values()
    prefixes = {prefix for file in imported for prefix in file.dynamic}
    return {family for family, package in FAMILIES.items() if package in prefixes} - {"stages"}


def loads_adapters(unit: str) -> bool:
    """Whether a unit imports what reads an adapter: those that only load a model import no method by name.

    Recipes look a method up to check its settings; reports read of recipes only where they stand.
    """
    family, name = unit.split("/")
    files = code.closure(f"{FAMILIES[family]}.{name}", owned=False).values()
    looks_up = [file for file in files if {"load_adapter", "method_module"} & file.names]
    return any(file.path.name != "recipes.py" for file in looks_up)


def test_a_stage_depends_on_its_own_code_and_on_every_unit_it_imports_by_name(profile: Path) -> None:
    for stage in planned(profile):
        named = units(stage)
        assert f"stages/{stage.module}" in named, f"{stage.name}: its own code is not among its deps"
        for unit in sorted(named):
            for family in dynamic(unit):
                if family == "methods" and not loads_adapters(unit):
                    continue
                assert any(one.startswith(f"{family}/") for one in named), f"{stage.name}: {unit} imports from {family}"


def test_every_unit_that_a_stage_depends_on_is_there(profile: Path) -> None:
    known = {f"{family}/{member}" for family in FAMILIES for member in code.members(family)}
    for stage in planned(profile):
        assert units(stage) <= known, f"{stage.name}: {sorted(units(stage) - known)}"


def test_the_plan_depends_on_the_files_that_expand_it() -> None:
    (plan,) = [stage for stage in resolved(ROOT / "params.yaml") if stage.name == "plan"]
    expanding = {"flow/plan.py", "flow/rows.py", "training/recipes.py", "core/config.py"}
    assert {f"pipeline/{path}" for path in expanding} <= plan.deps


def test_commands_call_their_stage_with_what_it_takes(profile: Path) -> None:
    for stage in resolved(profile):
        assert list(stage.command[:3]) == RUNNER
        assert stage.command[3].partition("@")[2] in ("", stage.name.partition("@")[2])
        taken = {
            key
            for key, kind in run_kinds(stage).items()
            if kind in (str, int, In, Out) or {In, Out} & set(get_args(kind))
        }
        assert set(stage.arguments) == taken, f"{stage.name}: flags of cmd against parameters of run"


def test_paths_of_the_command_are_deps_and_outs_and_the_other_way_round(profile: Path) -> None:
    for stage in planned(profile):
        read, written = set(), set()
        for key, kind in run_kinds(stage).items():
            if In in (kind, *get_args(kind)):
                read |= set(stage.arguments[key])
            elif Out in (kind, *get_args(kind)):
                written |= set(stage.arguments[key])
        unnamed = sorted(path for path in read if not covered(path, stage.deps))
        assert not unnamed, f"{stage.name}: read, but not in deps: {unnamed}"
        assert written == set(stage.outs), f"{stage.name}: outs against what cmd writes"
        data = {dep for dep in stage.deps if not dep.startswith(UNITS) and dep != "params.yaml"}
        unread = sorted(dep for dep in data if not any(covered(path, frozenset([dep])) for path in read))
        assert not unread, f"{stage.name}: in deps, but not in cmd: {unread}"


def test_every_setting_a_stage_reads_stands_in_its_params_and_no_other(profile: Path) -> None:
    params = read_params(profile)
    for stage in planned(profile):
        if "params.yaml" in stage.deps:  # all of it: it prints the settings of whatever was trained
            continue
        read = {place for kind in kinds(stage).values() for place in kind.places(params, plain_arguments(stage))}
        for place in read:
            named = any(place == name or place.startswith(f"{name}.") for name in stage.params)
            assert named, f"{stage.name}: reads {place}; its params name {sorted(stage.params)}"
        for name in stage.params:
            used = any(place == name or place.startswith(f"{name}.") for place in read)
            assert used, f"{stage.name}: its params name {name}, which it does not read"


def test_profiles_fit_every_stage(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert problems(profile) == []


def test_the_settings_are_a_profile() -> None:
    active = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert active in [profiles.text(name) for name in profiles.names()]


def test_every_entry_of_the_graph_walks_a_section_of_the_plan() -> None:
    from pipeline.flow.plan import SECTIONS

    entries = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    walked = {entry["foreach"].strip("${}") for entry in entries.values() if "foreach" in entry}
    assert walked == {f"plan.{section}" for section in SECTIONS}
