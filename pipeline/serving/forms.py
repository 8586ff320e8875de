"""The form that an adapter was trained in: the turns that stand before every question of its task.

An expert that saw a system turn and worked questions before every prompt has learned to answer there; asked without
them, it may do no better than the base model. So who is asked by name is asked in its form, unless the caller says
otherwise (``plain``) or brings a system turn, which is a form of the caller's own. An adapter of several tasks has as
many forms; CS-ReFT's router, which tells skills apart, picks one (``pipeline.serving.skills``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifacts import read_jsonl
from pipeline.core.reading import formed
from pipeline.core.types import PLAIN

LOOKED_AT = 50  # examples of a task: what all of them begin with is its form

Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Form:
    """task: whose form it is. turns: chat turns, the system's first if it has one; none: questions stand alone."""

    task: str = ""
    turns: tuple[Mapping[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.turns)

    def before(self, asked: Turns) -> Turns:
        """The turns that are read where a caller asks with ``asked``."""
        return asked if not self.turns or asked[0]["role"] in ("system", PLAIN) else [*self.turns, *asked]


ALONE = Form()


def form_of(task: str, folder: Path) -> Form:
    """The turns that all questions of a prepared task have before them. folder: the task's, with a file for each split.

    A task that was not prepared, or whose prompts begin in different ways, has none.
    """
    path = folder / "train.jsonl"
    if not path.is_file():
        return ALONE
    with formed(path, "examples", "run 'dvc repro prepare'"):
        begun = [_turns(row["messages"])[:-1] for row in read_jsonl(path)[:LOOKED_AT]]
    common = [turns[0] for turns in zip(*begun, strict=False) if all(turn == turns[0] for turn in turns)]
    return Form(task, tuple(common)) if begun and all(len(turns) == len(common) for turns in begun) else ALONE


def _turns(messages: Turns) -> Turns:
    """An example's turns. Raises KeyError or TypeError for what are none."""
    return [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in messages]
