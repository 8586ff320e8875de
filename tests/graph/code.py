"""What the project's files import, for the tests of the graph."""

import ast
from pathlib import Path

from pipeline.core.code import PACKAGES, ROOT, Code

__all__ = ["PACKAGES", "ROOT", "closure", "code", "module_file", "name_of", "our_files"]
BY_NAME = {"pipeline.flow.warm"}  # imports what it is asked to run
code = Code()
module_file = code.module_file


def name_of(file: Path) -> str:
    """The dotted name of one of our files."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def our_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def closure(file: Path) -> set[Path]:
    """A file and every file of ours that it comes to import, dynamic imports left out, with their packages."""
    return set(code.closure(name_of(file), owned=False))


def unfollowed(file: Path) -> list[str]:
    """Calls of ``import_module`` whose module can't be told from the text."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    asked = [call.args[0] for call in calls if ast.unparse(call.func).endswith("import_module")]
    known = (ast.Constant, ast.JoinedStr)
    return [ast.unparse(one) for one in asked if not isinstance(one, known) and name_of(file) not in BY_NAME]
