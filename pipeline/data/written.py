"""A task's splits as files, and how large the settings have them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.core.artifacts import atomic_folder, write_text
from pipeline.core.config import Section, settings, sources
from pipeline.core.progress import show_table, step
from pipeline.core.types import SPLITS, Example
from pipeline.pictures.files import opened, stored, suffix

Size = int | Literal["all"]
SHOWN = 5  # examples shown beside the run


class Each(Section):
    """As many examples of each subset of a benchmark that is the union of several."""

    each: int


class Sizes(Section, at="splits"):
    """How many examples each split has, in the tasks that do not say it themselves."""

    train: Size | Literal["rest"] | None = None
    validation: Size | None = None
    test: Size | Each | None = None
    few_shot: Size | None = None


class Divided(Section):
    """A task's data, with the sizes that ``splits`` gives all tasks where it says none itself."""

    domain: Literal["math", "code", "reasoning", "others"]
    seed: int

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


def write_splits(splits: Mapping[str, Sequence[Example]], *, task: str, domain: str, folder: Path) -> None:
    """Write a file for each split, and show some of the test examples beside the run."""
    with step("write splits"), atomic_folder(folder) as made:
        for split in SPLITS:
            rows = rows_of([kept_beside(example, made) for example in splits[split]], task, domain)
            lines = (line_of(row) for row in rows)
            write_text(made / f"{split}.jsonl", "".join(lines))
    shown = splits["test"][:SHOWN]
    show_table("examples", [{"prompt": example.messages[-1]["content"], "target": example.target} for example in shown])


def kept_beside(example: Example, folder: Path) -> Example:
    """An example whose pictures are files of ``folder/images``, named by the hash of their bytes."""
    if not example.images:
        return example
    messages = []
    for message in example.messages:
        names = []
        for picture in message.get("images", ()):
            data = stored(picture)
            opened(data, f"the example {example.id}")
            name = f"images/{hashlib.sha256(data).hexdigest()}.{suffix(data)}"
            (folder / "images").mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            names.append(name)
        messages.append({**message, "images": names} if names else message)
    return replace(example, messages=tuple(messages))


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
