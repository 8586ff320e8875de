"""The house stays readable: few rooms, short files, short functions, short argument lists."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.graph.code import ROOT, name_of, our_files

ENTRIES = 14  # in pipeline/, beside its __init__.py
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60
PARAMETERS = 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: Path) -> Iterator[Function]:
    """All functions of a file, those inside classes and functions, too."""
    return (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, Function))


def parameters(function: Function) -> int:
    """How many arguments a function takes, the object or class it belongs to aside."""
    taken = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in taken)


def test_pipeline_is_rooms_and_profiles() -> None:
    entries = [path.name for path in (ROOT / "pipeline").iterdir() if path.name not in ("__init__.py", "__pycache__")]
    assert len(entries) <= ENTRIES, sorted(entries)
    assert not [name for name in entries if name.endswith(".py")], "a loose file: put it into its room"


@pytest.mark.parametrize("file", our_files(), ids=name_of)
def test_a_file_is_read_in_one_sitting(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LINES_OF_A_FILE


@pytest.mark.parametrize("file", our_files(), ids=name_of)
def test_a_function_does_one_thing(file: Path) -> None:
    long = [f"{one.name}: {lines}" for one in functions(file) if (lines := length(one)) > LINES_OF_A_FUNCTION]
    assert not long
    run_of_a_stage = file.parent == ROOT / "stages"
    wide = [
        f"{one.name}: {count}"
        for one in functions(file)
        if (count := parameters(one)) > PARAMETERS
        and not (run_of_a_stage and one.name == "run")
        and not is_command(one)
    ]
    assert not wide


def is_command(function: Function) -> bool:
    """Whether its parameters are the options of a command line."""
    return "typer" in ast.unparse(function.args) or {"Folder", "Strategy"} <= {
        ast.unparse(one.annotation) for one in function.args.args if one.annotation
    }


def length(function: Function) -> int:
    """Lines from ``def`` to the last one."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_tests_mirror_the_rooms() -> None:
    rooms = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir()} | {"selfadapt"}
    mirrored = {path.name for path in (ROOT / "tests/unit").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert mirrored <= rooms


def test_the_graph_and_the_profiles_are_short() -> None:
    def lines(path: Path) -> int:
        return len(path.read_text(encoding="utf-8").splitlines())

    assert lines(ROOT / "dvc.yaml") <= 480
    sizes = {path.stem: lines(path) for path in (ROOT / "pipeline/profiles").glob("*.yaml")}
    assert sizes["laptop"] <= 150
    assert sum(sizes.values()) < 1250
    assert {name: size for name, size in sizes.items() if size > 110} == {"laptop": sizes["laptop"]}
