"""Fingerprints of code: what a stage depends on instead of a list of source files.

A unit is a module that is run or looked up by name: a stage, a task, a method, a strategy. Its fingerprint lists every
file of ours that it comes to import, each with a hash of what the file does: its text without comments, docstrings and
blank lines. So a changed docstring changes no fingerprint, and a changed function changes those of the units that can
reach it.

A package that has code in its ``__init__`` is one thing: all its files count, templates and started scripts too.
A module that is imported by a name known only at run time (``import_module(f"pipeline.tasks.{task}")``) is not
followed: it is a unit of its own, which the stage names among its deps by its item.

The hash is of the source text, not of ``ast.dump``, so that all versions of Python agree on it. Standard library only.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "stages", "selfadapt")
# What is looked up by name, by the name of its folder among the fingerprints: the package it is looked up in.
FAMILIES = {
    "stages": "stages",
    "tasks": "pipeline.tasks",
    "methods": "pipeline.methods",
    "adaptation": "pipeline.adaptation",
}


@dataclass(frozen=True)
class File:
    """A source file, read once.

    digest: of what it does; empty where that is nothing. modules: dotted names that it imports, at its top and inside
    functions. names: all names that it imports. dynamic: packages out of which it imports by a name known at run time.
    """

    path: Path
    digest: str
    modules: frozenset[str]
    names: frozenset[str]
    dynamic: frozenset[str]


class Code:
    """The project's source files. root: the folder that has ``pipeline`` and ``stages``."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._files: dict[Path, File] = {}

    def file(self, path: Path) -> File:
        """What is to be known of one file."""
        if path not in self._files:
            self._files[path] = self._read(path)
        return self._files[path]

    def module_file(self, module: str) -> Path | None:
        """The file of one of our modules; None if it is none (a function of a module, say)."""
        path = self.root.joinpath(*module.split("."))
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)

    def members(self, family: str) -> list[str]:
        """The names that can be looked up in a family of units."""
        folder = self.root.joinpath(*FAMILIES[family].split("."))
        modules = [path.stem for path in folder.glob("[a-z]*.py")]
        return sorted([*modules, *(path.parent.name for path in folder.glob("[a-z]*/__init__.py"))])

    def closure(self, module: str, *, owned: bool = True) -> dict[Path, File]:
        """The file of ``module`` and every file of ours that it comes to import, packages included, by path.

        owned: with all Python files of a package that has code in its ``__init__``, imported or not.
        """
        start = self.module_file(module)
        if start is None:
            raise ValueError(f"expected a module of this project, got '{module}'")
        closed: dict[Path, File] = {}
        todo = [start]
        while todo:
            path = todo.pop()
            if path in closed:
                continue
            closed[path] = self.file(path)
            if owned and path.name == "__init__.py" and closed[path].digest:
                todo += path.parent.glob("*.py")
            for name in closed[path].modules:
                parts = name.split(".")
                if parts[0] in PACKAGES:
                    heads = (".".join(parts[: count + 1]) for count in range(len(parts)))
                    todo += [file for head in heads if (file := self.module_file(head))]
        return closed

    def fingerprint(self, module: str) -> str:
        """A line for each file that ``module`` comes to import: the hash of what it does, and its path."""
        lines = {}
        for path, file in self.closure(module).items():
            if file.digest:
                lines[path] = file.digest
                if path.name == "__init__.py":
                    lines |= {data: _digest(data.read_bytes()) for data in _data_files(path.parent)}
        return "".join(f"{lines[path]} {path.relative_to(self.root).as_posix()}\n" for path in sorted(lines))

    def units(self) -> dict[str, str]:
        """The fingerprint of every unit, by its path: ``tasks/sums``."""
        return {
            f"{family}/{name}": self.fingerprint(f"{package}.{name}")
            for family, package in FAMILIES.items()
            for name in self.members(family)
        }

    def _read(self, path: Path) -> File:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        modules, names, dynamic = set(), set(), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.name for alias in node.names}
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    ours = whole.split(".")[0] in PACKAGES and self.module_file(whole)
                    modules.add(whole if ours else str(node.module))
            elif (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
            ):
                asked = node.args[0]
                if isinstance(asked, ast.Constant):
                    modules.add(str(asked.value))
                elif isinstance(asked, ast.JoinedStr) and isinstance(asked.values[0], ast.Constant):
                    dynamic.add(str(asked.values[0].value).rstrip("."))
        stripped = what_it_does(text, tree)
        digest = _digest(stripped.encode()) if stripped else ""
        return File(path, digest, frozenset(modules), frozenset(names), frozenset(dynamic))


def what_it_does(text: str, tree: ast.Module | None = None) -> str:
    """A source text without comments, docstrings and blank lines. Strings that span lines stay as they are."""
    lines = text.splitlines()
    inside: set[int] = set()  # lines that end within a string: neither blank nor to be trimmed
    opened: list[int] = []  # where f-strings begin: from Python 3.12 on they are several tokens
    comments: dict[int, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "COMMENT":
            comments[token.start[0]] = token.start[1]
        elif kind == "STRING":
            inside.update(range(token.start[0], token.end[0]))
        elif kind == "FSTRING_START":
            opened.append(token.start[0])
        elif kind == "FSTRING_END":
            inside.update(range(opened.pop(), token.end[0]))
    documented = {number for first, last in _docstrings(tree or ast.parse(text)) for number in range(first, last + 1)}
    kept = []
    for number, line in enumerate(lines, start=1):
        if number in documented:
            continue
        if number not in inside:
            line = line[: comments.get(number)].rstrip()
        if line or number in inside:
            kept.append(line)
    return "\n".join(kept)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """The first and last line of every docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and type(first.value.value) is str:
                yield first.lineno, first.end_lineno or first.lineno


def _data_files(folder: Path) -> Iterator[Path]:
    """The files of a package that are no Python, those of packages inside it left out."""
    for path in folder.iterdir():
        if path.is_dir():
            if path.name != "__pycache__" and not (path / "__init__.py").exists():
                yield from _data_files(path)
        elif path.suffix != ".py":
            yield path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
