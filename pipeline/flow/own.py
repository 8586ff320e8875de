"""A file of rows of one's own as settings: what its columns seem to be, and the task and the table it becomes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from pipeline.core.artifacts import read_jsonl
from pipeline.core.errors import UserError
from pipeline.core.reading import formed
from pipeline.flow.profiles import edited

# What columns are usually called, the likelier name first.
PROMPTS = ("prompt", "question", "instruction", "input", "problem", "text", "query")
ANSWERS = ("answer", "completion", "response", "output", "target", "solution", "label")
CHOICES = ("choices", "options")
NUMBER = re.compile(r"\s*[-+]?(\d[\d,]*)?\.?\d+\s*")
ON_ONE_TASK = ("train_svf", "train_reinforce", "train_supervised")  # the stages that train on a task alone
FEWEST = 40  # rows: fewer make no test that says anything
LARGEST = 200  # of the validation and test splits


@dataclass(frozen=True)
class Own:
    """Rows of one's own, as they will stand in the settings. rows, sizes: of the task's data. tokens: at most.

    values: the rows themselves.
    """

    name: str
    rows: dict[str, Any]
    sizes: dict[str, Any]
    tokens: int
    values: list[dict[str, Any]]

    @property
    def said(self) -> str:
        """What was made of the file, for its owner to judge."""
        what = ", ".join(f"{key}: {value}" for key, value in self.rows.items() if value != "")
        sizes = ", ".join(f"{count} {split}" for split, count in self.sizes.items())
        return f"task '{self.name}': {what}\nsplits: {sizes}; answers of at most {self.tokens} tokens"


def named(path: Path, name: str | None) -> str:
    """The name of the task: the one given, or the file's. UserError if a task cannot be called so."""
    chosen = name or re.sub(r"\W+", "_", path.stem).strip("_").lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", chosen):
        raise UserError(f"expected a name of small letters, digits and _, got '{chosen}'; give another by --name")
    return chosen


def read(path: Path, *, name: str, given: Mapping[str, Any]) -> Own:
    """What a file's rows seem to be. given: what its owner says of them (keys of ``pipeline.tasks.own.Rows``)."""
    if not path.is_file():
        raise UserError(f"expected a file of rows in {path}, which is not there; correct its name")
    with formed(path, "a JSON object a line", "correct it"):
        rows = read_jsonl(path)
        columns = [column for column in rows[0] if all(column in row for row in rows)] if rows else []
    if len(rows) < FEWEST:
        raise UserError(
            f"expected at least {FEWEST} rows in {path}, got {len(rows)}: a test of fewer says nothing; add some"
        )
    found = {key: value for key, value in given.items() if value not in (None, "")}
    for what, usual in (("prompt", PROMPTS), ("answer", ANSWERS)):
        if what not in found:
            found[what] = _column(columns, usual, what, path)
    offered = next((column for column in CHOICES if column in columns), None)
    if "scorer" not in found:
        found["scorer"] = _scorer(rows, columns, found, offered)
    if found["scorer"] == "choices":
        found.setdefault("options", offered or CHOICES[0])
    longest = max(len(str(row.get(found["answer"], ""))) for row in rows)
    tokens = min(512, 16 + longest // 2)  # two characters a token are few, so that no answer is cut
    return Own(name, {"path": str(path), **found}, _sizes(len(rows), int(found.get("worked", 0))), tokens, rows)


def _column(columns: Sequence[str], usual: Sequence[str], what: str, path: Path) -> str:
    known = {column.lower(): column for column in columns}
    for name in usual:
        if name in known:
            return known[name]
    there = ", ".join(columns) or "none"
    raise UserError(f"expected a column for the {what} in every row of {path}, got {there}; name it by --{what}")


def _scorer(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], found: Mapping[str, Any], offered: str | None
) -> str:
    """The scorer that fits the rows: the strictest that all of them admit."""
    if found.get("pattern"):
        return "pattern"
    if offered or found.get("options"):
        return "choices"
    if {"tests", "function"} <= set(columns):
        return "code"
    answers = [str(row.get(found["answer"])) for row in rows]
    return "numbers" if all(NUMBER.fullmatch(answer) for answer in answers) else "exact"


def _sizes(rows: int, worked: int) -> dict[str, Any]:
    """The splits of so many rows: a quarter is the test, a fifth validates, both of at most ``LARGEST``."""
    return {
        "train": "rest",
        "validation": min(LARGEST, rows // 5),
        "test": min(LARGEST, rows // 4),
        "few_shot": worked + min(10, rows // 20),
    }


def added(params: str, own: Own, *, methods: Sequence[str], seed: int | None) -> str:
    """The settings ``params`` with the task, and a table of its name: the base model and the rows ``methods``."""

    def lay(settings: CommentedMap) -> None:
        known = settings.get("rows", {})
        trained = [name for name, one in known.items() if one.get("from") in ON_ONE_TASK and "shots" not in one]
        for row in methods:
            if row not in trained:
                rows = ", ".join(trained)
                raise UserError(
                    f"expected a row of params.yaml that is trained on one task, got '{row}'; rows are: {rows}"
                )
        if own.name in settings["tasks"] and settings["tasks"][own.name].get("role") != "own":
            raise UserError(
                f"expected a new name for rows of your own, got '{own.name}', a task; give another by --name"
            )
        data = {"domain": "others", "seed": 0, **own.sizes, "rows": own.rows}
        settings["tasks"][own.name] = flow({"role": "own", "data": data, "decoding": {"max_new_tokens": own.tokens}})
        table = {"tasks": [own.name], "rows": ["base", *methods]}
        settings.setdefault("tables", CommentedMap())[own.name] = flow(
            table | ({} if seed is None else {"seeds": [seed]})
        )

    return edited(params, lay)


def flow(value: Any) -> Any:
    """A mapping that is written on one line, as its neighbours are."""
    if not isinstance(value, Mapping):
        return value
    made = CommentedMap((key, flow(part)) for key, part in value.items())
    made.fa.set_flow_style()
    return made
