"""Reading, trained: TextVQA (arXiv 1904.08920), questions about what is written in a photograph. 34 602 to train on.

The 5 000 questions of its validation split are the test: the answers of its own test split are not public. Ten people
answered each question, and an answer is scored by how many agree (``pipeline.scoring.vqa``). Questions and answers are
fetched; the photographs, of OpenImages, are taken from a folder that ``options`` names.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Origin, Score, Table
from pipeline.scoring import vqa

REPOSITORY, REVISION = "mlfoundations/open_flamingo", "655f693fbfa04cd6e9a987d960654624d48917cf"
HINT = "Answer the question using a single word or phrase."
COLUMNS = {"questions": ("question", "question_id", "image_id"), "annotations": ("question_id", "answers")}


def _table(split: str, part: str) -> Table:
    name = f"textvqa/{split}_{part}_vqa_format.json"
    origin = Origin("github", REPOSITORY, REVISION, f"open_flamingo/eval/data/{name}")
    return Table(columns=COLUMNS[part], origins=(origin,), mirror=(name,), within=part)


TABLES = {
    "train": _table("train", "questions"),
    "answers_train": _table("train", "annotations"),
    "test": _table("val", "questions"),
    "answers_test": _table("val", "annotations"),
}


class Options(Section):
    """pictures: the folder that has the photographs of both splits, as ``<image_id>.jpg``."""

    pictures: str


def question(row: Mapping[str, Any]) -> str:
    return row["question"]


def native_splits(tables: Mapping[str, Sequence[Mapping[str, Any]]], options: Options) -> dict[str, list[Example]]:
    folder = Path(options.pictures).expanduser()

    def picture(split: str, row: Mapping[str, Any]) -> Path:
        return folder / f"{row['image_id']}.jpg"

    return {split: list(paired("textvqa", split, tables, picture)) for split in ("train", "test")}


def paired(
    task: str,
    split: str,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    picture: Callable[[str, Mapping[str, Any]], Path],
) -> Iterator[Example]:
    """The questions of a split with what people answered. picture: the file of a row's photograph."""
    given = {row["question_id"]: [one["answer"] for one in row["answers"]] for row in tables[f"answers_{split}"]}
    missing = [row["question_id"] for row in tables[split] if row["question_id"] not in given]
    if missing:
        raise UserError(f"expected answers to each question of {task}, got none to {missing[0]}; get the tables again")
    for row in tables[split]:
        people, shown = given[row["question_id"]], [str(picture(split, row))]
        asked = {"role": "user", "content": f"{row['question'].capitalize()}\n{HINT}", "images": shown}
        target = Counter(map(vqa.normal, people)).most_common(1)[0][0]
        meta = {"question": row["question"], "answers": people}
        yield Example(f"{task}-{split}-{row['question_id']}", (asked,), target, meta)


def score(examples: Sequence[Example], answers: Sequence[str]) -> list[Score]:
    return [
        vqa.score(example.id, answer, example.meta["answers"])
        for example, answer in zip(examples, answers, strict=True)
    ]
