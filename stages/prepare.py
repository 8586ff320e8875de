"""Draw or read the examples of a task, divide them among its splits, and write each split as JSONL."""

from collections.abc import Mapping
from typing import Any, Literal

from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import SPLITS, Example
from pipeline.data.splits import divide, fill, of_each_subset
from pipeline.data.tasks import built_in, held_out_of_others, native_splits
from pipeline.data.written import Divided, Each, Size, write_splits


class TaskData(Divided, at="tasks.{task}.data"):
    """What a task's examples are, and how many.

    train, validation, test, few_shot: sizes, in examples or ``all`` there are; those of ``splits`` where left out. Of a
        benchmark's train split training and validation have at most a half each, unless ``train`` is the ``rest``, all
        that validation leaves.
    options: the task's own, checked by its ``Options``.
    """

    train: Size | Literal["rest"]
    validation: Size
    test: Size | Each
    few_shot: Size
    options: dict[str, Any]


def run(*, task: str, data: TaskData, raw: In, examples: Out) -> Mapping[str, Any]:
    """Prepare a task; returns the sizes of its splits, and how many rows of a benchmark were dropped, and why."""
    module = built_in(task)
    options = module.Options.parse(data.options, f"tasks.{task}.data.options")
    each = data.test.each if isinstance(data.test, Each) else None
    sizes: dict[str, Any] = {split: "all" if split == "test" and each else getattr(data, split) for split in SPLITS}
    splits: dict[str, list[Example]]
    dropped: Mapping[str, int] = {}
    if hasattr(module, "TABLES"):
        with step("read the tables and divide them"):
            native = native_splits(module, task, options, raw)
            splits, dropped = divide(native, sizes, data.seed, held_out_of_others(task, raw))
            if each:
                splits["test"] = of_each_subset(splits["test"], each, data.seed)
    elif words := [size for size in sizes.values() if not isinstance(size, int)]:
        raise UserError(
            f"params.yaml: expected sizes of the generated task '{task}' to be numbers, got '{words[0]}'; correct it"
        )
    else:
        with step("draw examples"):
            splits = fill(module.examples(data.seed, options), sizes)
    write_splits(splits, task=task, domain=data.domain, folder=examples)
    return {**{split: len(rows) for split, rows in splits.items()}, **dropped}


if __name__ == "__main__":
    main()
