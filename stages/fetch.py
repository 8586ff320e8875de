"""Bring the raw tables of every benchmark among the tasks, and list the texts that no training may see.

Tasks that are generated have no tables. ``held_out.json`` has, for each task, a digest of each test prompt's normalised
text: the preparation of every other task drops what is in there.
"""

import importlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from pipeline.core.artifacts import atomic_folder, write_json
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import Out, main
from pipeline.data.splits import text_digest
from pipeline.data.tables import read_table


class Tasks(Section, at=""):
    """The tasks of params.yaml, as far as the tables depend on them."""

    model_config = ConfigDict(extra="ignore")

    tasks: dict[str, dict[str, Any]]


def run(*, settings: Tasks, raw: Out) -> Mapping[str, Any]:
    """Bring the tables of all tasks of params.yaml."""
    rows: dict[str, int] = {}
    held_out: dict[str, list[str]] = {}
    with atomic_folder(raw) as folder:
        for task, entry in settings.tasks.items():
            try:
                module = importlib.import_module(f"pipeline.tasks.{task}")
            except ModuleNotFoundError as error:
                if error.name != f"pipeline.tasks.{task}":
                    raise
                raise UserError(
                    f"params.yaml names the task '{task}'; add pipeline/tasks/{task}.py or remove it"
                ) from None
            if not hasattr(module, "TABLES"):
                continue
            options = module.Options.parse(entry["data"]["options"], f"tasks.{task}.data.options")
            needed = module.needed(options) if hasattr(module, "needed") else module.TABLES
            with step(f"read the tables of {task}"):
                texts: set[str] = set()
                for name in sorted(needed):
                    table = read_table(f"the table '{name}' of {task}", module.TABLES[name])
                    rows[f"{task}/{name}"] = len(table)
                    path = folder / task / f"{name}.jsonl"
                    path.parent.mkdir(exist_ok=True)
                    # Infinity and NaN stand among the arguments of tests, as Python writes and reads them.
                    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in table)
                    path.write_text("".join(lines), encoding="utf-8")
                    if name.startswith("test"):
                        texts |= {text_digest(module.question(row)) for row in table}
                held_out[task] = sorted(texts)
        write_json(folder / "held_out.json", held_out)
    show_table("tables", [{"table": name, "rows": count} for name, count in rows.items()])
    return rows


if __name__ == "__main__":
    main()
