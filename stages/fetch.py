"""Bring the raw tables of every benchmark among the tasks, and list the texts that no training may see.

Tasks that are generated have no tables. ``held_out.json`` has, for each benchmark, a digest of the normalised text of
each test prompt; the preparation of every other task drops what is in there.
"""

import json
from collections.abc import Mapping
from typing import Any, Self

from pipeline.core.artifacts import atomic_folder, write_json
from pipeline.core.config import Section, settings, sources
from pipeline.core.progress import show_table, step
from pipeline.core.stage import Out, main
from pipeline.data.splits import text_digest
from pipeline.data.tables import read_table
from pipeline.data.tasks import built_in, needed_tables


class Tasks(Section, at="tasks"):
    """All tasks of params.yaml, by name: their tables depend on the options in their ``data``."""

    tasks: dict[str, dict[str, Any]]

    @classmethod
    def places(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> tuple[str, ...]:
        return sources(params, cls.at)

    @classmethod
    def read(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> Self:
        return cls.parse({cls.at: settings(params, cls.at)}, "")


def run(*, settings: Tasks, raw: Out) -> Mapping[str, Any]:
    """Bring the tables of all tasks of params.yaml; returns their numbers of rows."""
    rows: dict[str, int] = {}
    held_out: dict[str, list[str]] = {}
    with atomic_folder(raw) as folder:
        for task, entry in settings.tasks.items():
            if "rows" in entry["data"] or not hasattr(module := built_in(task), "TABLES"):
                continue
            options = module.Options.parse(entry["data"]["options"], f"tasks.{task}.data.options")
            with step(f"read the tables of {task}"):
                texts: set[str] = set()
                for name, source in needed_tables(module, options).items():
                    table = read_table(f"the table '{name}' of {task}", source)
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
