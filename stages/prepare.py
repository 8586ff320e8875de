"""Draw the examples of a task, divide them among its splits, and write one JSONL file per split."""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pipeline.core.artifacts import atomic_folder, write_jsonl
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.splits import fill
from pipeline.core.stage import Out, main
from pipeline.core.types import SPLITS


class TaskData(Section, at="tasks.{task}.data"):
    """Sizes are numbers of examples; ``options`` are the task's own, checked by its ``Options``."""

    domain: Literal["math", "code", "reasoning"]
    seed: int
    train: int
    validation: int
    test: int
    few_shot: int
    options: dict[str, Any]


def run(*, task: str, data: TaskData, examples: Out) -> Mapping[str, Any]:
    """Prepare one task."""
    try:
        module = importlib.import_module(f"pipeline.tasks.{task}")
    except ModuleNotFoundError as error:
        if error.name != f"pipeline.tasks.{task}":
            raise
        raise UserError(f"params.yaml names the task '{task}'; add pipeline/tasks/{task}.py or remove it") from None
    options = module.Options.parse(data.options, f"tasks.{task}.data.options")
    with step("draw examples"):
        splits = fill(module.examples(data.seed, options), {split: getattr(data, split) for split in SPLITS})
    with step("write splits"), atomic_folder(examples) as folder:
        for split in SPLITS:
            rows = [asdict(example) for example in splits[split]]
            for row in rows:
                row["meta"] = {**row["meta"], "task": task, "domain": data.domain}
            write_jsonl(folder / f"{split}.jsonl", rows)
    shown = splits["test"][:5]
    show_table("examples", [{"prompt": example.messages[-1]["content"], "target": example.target} for example in shown])
    return {split: len(rows) for split, rows in splits.items()}


if __name__ == "__main__":
    main()
