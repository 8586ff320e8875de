"""Draw or read the examples of a task, divide them among its splits, and write each split as JSONL."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

from pipeline.core.artifacts import atomic_folder, write_text
from pipeline.core.config import Section, settings, sources
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import SPLITS, Example
from pipeline.data.splits import divide, fill, of_each_subset
from pipeline.data.tasks import held_out_of_others, native_splits, task_module

Size = int | Literal["all"]


class Each(Section):
    """As many examples of each subset of a benchmark that is the union of several."""

    each: int


class Sizes(Section, at="splits"):
    """How many examples each split has, in the tasks that do not say it themselves."""

    train: Size | Literal["rest"] | None = None
    validation: Size | None = None
    test: Size | Each | None = None
    few_shot: Size | None = None


class TaskData(Section, at="tasks.{task}.data"):
    """What a task's examples are, and how many.

    train, validation, test, few_shot: sizes, in examples or ``all`` there are; those of ``splits`` where left out. Of a
        benchmark's train split training and validation have at most a half each, unless ``train`` is the ``rest``, all
        that validation leaves.
    options: the task's own, checked by its ``Options``.
    """

    domain: Literal["math", "code", "reasoning", "others"]
    seed: int
    train: Size | Literal["rest"]
    validation: Size
    test: Size | Each
    few_shot: Size
    options: dict[str, Any]

    @classmethod
    def places(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> tuple[str, ...]:
        shared = sources(params, Sizes.at) if Sizes.at in params else ()
        return tuple(dict.fromkeys([*shared, *sources(params, cls.location(arguments))]))

    @classmethod
    def read(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> Self:
        where = cls.location(arguments)
        own = settings(params, where)
        if Sizes.at in params and isinstance(own, Mapping):
            shared = settings(params, Sizes.at)
            Sizes.parse(shared, Sizes.at)  # a mistake in there is named there
            own = {**shared, **own}
        return cls.parse(own, where)


def run(*, task: str, data: TaskData, raw: In, examples: Out) -> Mapping[str, Any]:
    """Prepare a task; returns the sizes of its splits, and how many rows of a benchmark were dropped, and why."""
    module = task_module(task)
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
    with step("write splits"), atomic_folder(examples) as folder:
        for split in SPLITS:
            lines = (line_of(row) for row in rows_of(splits[split], task, data.domain))
            write_text(folder / f"{split}.jsonl", "".join(lines))
    shown = splits["test"][:5]
    show_table("examples", [{"prompt": example.messages[-1]["content"], "target": example.target} for example in shown])
    return {**{split: len(rows) for split, rows in splits.items()}, **dropped}


def rows_of(examples: Sequence[Example], task: str, domain: str) -> list[dict[str, Any]]:
    """Examples as JSON values, each with its task and domain."""
    rows = [asdict(example) for example in examples]
    return [{**row, "meta": {**row["meta"], "task": task, "domain": domain}} for row in rows]


def line_of(row: Mapping[str, Any]) -> str:
    """An example as a line of JSON, keys sorted but for those of the choices, which stand in the order of mention."""
    choices = row["meta"].get("choices")
    plain = json.loads(json.dumps(row, sort_keys=True, allow_nan=False))
    if isinstance(choices, Mapping):
        plain["meta"]["choices"] = dict(choices)
    return json.dumps(plain, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
