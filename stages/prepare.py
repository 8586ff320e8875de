"""Draw or read the examples of a task, divide them among its splits, and write one JSONL file per split."""

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pipeline.core.artifacts import atomic_folder, read_json, read_jsonl, write_jsonl
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import SPLITS, Example
from pipeline.data.splits import divide, fill, of_each_subset


class Each(Section):
    """As many examples of each subset of a benchmark that is the union of several."""

    each: int


class TaskData(Section, at="tasks.{task}.data"):
    """Sizes are numbers of examples, or all there are; ``options`` are the task's own, checked by its ``Options``."""

    domain: Literal["math", "code", "reasoning", "others"]
    seed: int
    train: int | Literal["all"]
    validation: int | Literal["all"]
    test: int | Literal["all"] | Each
    few_shot: int | Literal["all"]
    options: dict[str, Any]


def run(*, task: str, data: TaskData, raw: In, examples: Out) -> Mapping[str, Any]:
    """Prepare one task."""
    try:
        module = importlib.import_module(f"pipeline.tasks.{task}")
    except ModuleNotFoundError as error:
        if error.name != f"pipeline.tasks.{task}":
            raise
        raise UserError(f"params.yaml names the task '{task}'; add pipeline/tasks/{task}.py or remove it") from None
    options = module.Options.parse(data.options, f"tasks.{task}.data.options")
    each = data.test.each if isinstance(data.test, Each) else None
    sizes: dict[str, Any] = {split: "all" if split == "test" and each else getattr(data, split) for split in SPLITS}
    dropped: Mapping[str, int] = {}
    if hasattr(module, "TABLES"):
        with step("read the tables and divide them"):
            splits, dropped = divide(native(module, task, options, raw), sizes, data.seed, others(task, raw))
            if each:
                splits["test"] = of_each_subset(splits["test"], each, data.seed)
    elif "all" in sizes.values():
        raise UserError(
            f"params.yaml: expected sizes of the generated task '{task}' to be numbers, got 'all'; correct it"
        )
    else:
        with step("draw examples"):
            splits = fill(module.examples(data.seed, options), sizes)
    with step("write splits"), atomic_folder(examples) as folder:
        for split in SPLITS:
            rows = [asdict(example) for example in splits[split]]
            for row in rows:
                row["meta"] = {**row["meta"], "task": task, "domain": data.domain}
            write_jsonl(folder / f"{split}.jsonl", rows)
    shown = splits["test"][:5]
    show_table("examples", [{"prompt": example.messages[-1]["content"], "target": example.target} for example in shown])
    return {**{split: len(rows) for split, rows in splits.items()}, **dropped}


def native(module: ModuleType, task: str, options: Section, raw: Path) -> dict[str, list[Example]]:
    """A benchmark's own splits, from the tables that ``fetch`` has brought."""
    paths = sorted((raw / task).glob("*.jsonl"))
    if not paths:
        raise UserError(f"expected the tables of '{task}' in {raw / task}, found none; run 'dvc repro fetch'")
    return module.native_splits({path.stem: read_jsonl(path) for path in paths}, options)


def others(task: str, raw: Path) -> frozenset[str]:
    """Digests of the other tasks' test prompts."""
    held_out = read_json(raw / "held_out.json")
    return frozenset(digest for other, digests in held_out.items() if other != task for digest in digests)


if __name__ == "__main__":
    main()
