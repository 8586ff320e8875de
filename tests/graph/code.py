"""What a file of the project imports, read from its syntax."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "stages", "selfadapt")
# imports by name: the standard library for the programs it runs; what it is asked to run
BY_NAME = {"pipeline.scoring.code.worker", "pipeline.flow.warm"}


@dataclass(frozen=True)
class Imports:
    """modules: dotted names. names: all names imported. dynamic: prefixes of ``import_module(f"prefix.{…}")``."""

    modules: frozenset[str]
    names: frozenset[str]
    dynamic: frozenset[str]


def module_file(module: str) -> Path | None:
    """The file of one of our modules, or None if it is not one (a function of a module, say)."""
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def is_only_a_docstring(file: Path) -> bool:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


@cache
def imports(file: Path) -> Imports:
    """All that ``file`` imports, at its top and inside functions, without the packages on the way."""
    modules, names, dynamic = set(), set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            names |= {alias.name for alias in node.names}
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                ours = whole.split(".")[0] in PACKAGES and module_file(whole)
                modules.add(whole if ours else str(node.module))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            asked = node.args[0]
            if isinstance(asked, ast.JoinedStr) and isinstance(asked.values[0], ast.Constant):
                dynamic.add(str(asked.values[0].value).rstrip("."))
            elif isinstance(asked, ast.Constant):
                modules.add(str(asked.value))
            else:
                assert name_of(file) in BY_NAME, f"{file}: import_module of something that cannot be followed"
    return Imports(frozenset(modules), frozenset(names), frozenset(dynamic))


def name_of(file: Path) -> str:
    """The dotted name of one of our files."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def our_files() -> list[Path]:
    return sorted(
        [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").glob("*.py"), *(ROOT / "selfadapt").glob("*.py")]
    )


def closure(start: Path) -> set[Path]:
    """``start`` and every file of ours that it comes to import, dynamic imports left out, with their packages."""
    found: set[Path] = set()
    todo = [start]
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for module in imports(file).modules:
            parts = module.split(".")
            if parts[0] in PACKAGES:
                names = [".".join(parts[: count + 1]) for count in range(len(parts))]
                todo += [path for name in names if (path := module_file(name))]
    return found
