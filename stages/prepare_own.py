"""Divide rows of one's own among the splits of a task, and write each split as JSONL."""

import random
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.core.artifacts import read_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.reading import formed
from pipeline.core.stage import In, Out, main
from pipeline.core.types import SPLITS
from pipeline.data.splits import fill, normalised
from pipeline.data.tasks import is_built_in
from pipeline.data.written import Divided, write_splits
from pipeline.tasks import own


class OwnData(Divided, at="tasks.{task}.data"):
    """What the rows of a task are, and how many each split has.

    train, validation, test, few_shot: sizes; those of ``splits`` where left out. train: ``rest``, all that the others
        leave. seed: of the order in which rows are dealt out.
    """

    train: int | Literal["rest"]
    validation: int
    test: int
    few_shot: int
    rows: own.Rows


def run(*, task: str, rows: In, data: OwnData, examples: Out) -> Mapping[str, Any]:
    """Prepare a task of one's own; returns the sizes of its splits, and how many rows were asked twice."""
    if is_built_in(task):
        raise UserError(
            f"params.yaml: expected a new name for rows of your own, got '{task}', a task; name it otherwise"
        )
    with step(f"read {rows}"):
        with formed(rows, "a JSON object a line", "correct it"):
            read = own.examples(task, read_jsonl(rows), data.rows)
        random.Random(f"own {data.seed}").shuffle(read)
    sizes: dict[str, Any] = {split: getattr(data, split) for split in SPLITS}
    distinct = len({normalised(example) for example in read})
    if sizes["train"] == "rest":
        sizes["train"] = distinct - sum(size for size in sizes.values() if isinstance(size, int))
        if sizes["train"] < 1:
            raise UserError(
                f"expected more than {distinct - sizes['train']} different rows in {rows}, got {distinct}; give "
                f"'tasks.{task}.data' smaller splits in params.yaml, or more rows"
            )
    splits = own.worked(fill(read, sizes), data.rows)
    write_splits(splits, task=task, domain=data.domain, folder=examples)
    return {**{split: len(several) for split, several in splits.items()}, "repeated": len(read) - distinct}


if __name__ == "__main__":
    main()
