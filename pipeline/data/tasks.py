"""Tasks by name: the module of a task, and the tables of those that are benchmarks."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pipeline.core.artifacts import read_json, read_jsonl
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Table

OWN = "own"  # the module of rows of one's own


def is_built_in(task: str) -> bool:
    """Whether ``pipeline.tasks`` has a module of this name."""
    module = f"pipeline.tasks.{task}"
    there = module in sys.modules or (task.isidentifier() and importlib.util.find_spec(module) is not None)
    return task != OWN and there


def built_in(task: str) -> ModuleType:
    """The module of ``pipeline.tasks`` with this name. UserError if there is none."""
    if not is_built_in(task):
        raise UserError(
            f"expected a known task, but params.yaml names the task '{task}', which has neither a file nor rows of its "
            f"own; add pipeline/tasks/{task}.py, give 'tasks.{task}.data' its 'rows', or remove it"
        )
    return importlib.import_module(f"pipeline.tasks.{task}")


def task_module(task: str) -> ModuleType:
    """The module that scores a task's answers: that of its name, or, for rows of one's own, the one of all such."""
    return built_in(task) if is_built_in(task) else importlib.import_module(f"pipeline.tasks.{OWN}")


def needed_tables(module: ModuleType, options: Section) -> dict[str, Table]:
    """The tables that a task reads under its options, by name; none of a task that is generated."""
    if not hasattr(module, "TABLES"):
        return {}
    names = module.needed(options) if hasattr(module, "needed") else module.TABLES
    return {name: module.TABLES[name] for name in sorted(names)}


def native_splits(module: ModuleType, task: str, options: Section, raw: Path) -> dict[str, Sequence[Example]]:
    """A benchmark's own splits. raw: the folder of tables that the stage ``fetch`` has brought."""
    paths = sorted((raw / task).glob("*.jsonl"))
    if not paths:
        raise UserError(f"expected the tables of '{task}' in {raw / task}, which has none; run 'dvc repro fetch'")
    return module.native_splits({path.stem: read_jsonl(path) for path in paths}, options)


def held_out_of_others(task: str, raw: Path) -> frozenset[str]:
    """Digests of the test prompts of all other tasks."""
    held_out = read_json(raw / "held_out.json")
    return frozenset(digest for other, digests in held_out.items() if other != task for digest in digests)
