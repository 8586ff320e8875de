"""Reading, unseen: OK-VQA (arXiv 1906.00067), questions about photographs that ask for knowledge from outside.

9 009 questions to train on and 5 046 to test, on photographs of COCO, each answered by ten people; scored as TextVQA.
No repository is known to have its tables at a commit, so they are taken from a mirror, into which the data set's own
files go; the photographs are taken from a folder that ``options`` names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import Section
from pipeline.core.types import Example, Table
from pipeline.tasks.textvqa import COLUMNS, paired, question, score

__all__ = ["TABLES", "Options", "native_splits", "question", "score"]

YEARS = {"train": "train2014", "test": "val2014"}


def _table(name: str, part: str) -> Table:
    return Table(columns=COLUMNS[part], origins=(), mirror=(f"okvqa/{name}.json",), within=part)


TABLES = {
    "train": _table("OpenEnded_mscoco_train2014_questions", "questions"),
    "answers_train": _table("mscoco_train2014_annotations", "annotations"),
    "test": _table("OpenEnded_mscoco_val2014_questions", "questions"),
    "answers_test": _table("mscoco_val2014_annotations", "annotations"),
}


class Options(Section):
    """pictures: the folder that has COCO's folders ``train2014`` and ``val2014``."""

    pictures: str


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    folder = Path(options.pictures).expanduser()

    def picture(split: str, row: Mapping[str, Any]) -> Path:
        return folder / YEARS[split] / f"COCO_{YEARS[split]}_{int(row['image_id']):012d}.jpg"

    return {split: list(paired("okvqa", split, tables, picture)) for split in ("train", "test")}
