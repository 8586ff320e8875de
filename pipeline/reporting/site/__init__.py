"""The report as pages: Jinja templates, a style sheet and two small scripts become files that need no network.

Pages open from the file system, where a browser reads local files only through tags. Completions are therefore
JavaScript files, which a script adds when they are asked for. A page never scrolls sideways; a wide table or figure
does so in a box of its own.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.reporting.papers import row_name
from pipeline.reporting.wording import READING, WARNING, WITHOUT_MODEL, cell_text, percent, signed

FOLDER = Path(__file__).parent
STATIC = ("style.css", "site.js", "completions.js")


@dataclass(frozen=True)
class Page:
    """A page of the report.

    path: under the report's folder. name: in the menu. template: in the folder ``templates``. content: what it shows.
    """

    path: str
    name: str
    title: str
    template: str
    content: Mapping[str, Any]

    @property
    def root(self) -> str:
        """From the page to the report's folder."""
        return "../" * self.path.count("/")


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its SVG and what it shows."""

    name: str
    svg: str
    caption: str

    @property
    def alternative(self) -> str:
        """What a screen reader says, as it stands in the SVG."""
        label = re.search(r'aria-label="([^"]*)"', self.svg)
        return label.group(1) if label else self.caption

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in points."""
        width, height = (float(re.search(rf'{name}="([\d.]+)pt"', self.svg).group(1)) for name in ("width", "height"))  # type: ignore[union-attr]
        return round(width), round(height)


@dataclass(frozen=True)
class Answers:
    """One cell's answers to a task's prompts, in order: text, what was read off it (or None), and if it is right."""

    cell: str
    row: str
    seed: int
    answers: Sequence[tuple[str, str | None, bool]]


@dataclass(frozen=True)
class Asked:
    """The test prompts of a task, each with id, text and reference answer, and what every cell answered.

    A prompt about pictures has them behind, as data URLs.
    """

    task: str
    domain: str
    prompts: Sequence[tuple[str, str, str] | tuple[str, str, str, Sequence[str]]]
    cells: Sequence[Answers] = field(default=())


def render(page: Page, menu: Sequence[tuple[str, Sequence[Page]]], shared: Mapping[str, Any]) -> str:
    """A page as text. menu: the pages it leads to, in groups with their names. shared: what every page says."""
    return templates().get_template(page.template).render(page=page, menu=menu, **shared, **page.content)


@functools.cache
def templates() -> Environment:
    """The templates, each compiled once, with what they know of how things are written."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "signed": signed,
        "row_name": row_name,
        "cell_text": cell_text,
        "words": lambda name: name.replace("_", " "),
    }
    environment.globals |= {"reading": READING, "warning": WARNING, "without_model": WITHOUT_MODEL}
    return environment


def static() -> dict[str, str]:
    """The style sheet and the scripts, by path."""
    return {f"site/{name}": (FOLDER / "static" / name).read_text(encoding="utf-8") for name in STATIC}


def answers_script(asked: Asked) -> str:
    """A task's prompts and answers as a script, one on each line, so that git shows which of them changed."""
    cells = ",\n".join(
        f"{dump(cell.cell)}: "
        + dump({"row": cell.row, "by": row_name(cell.row), "seed": cell.seed})[:-1]
        + ', "answers": [\n'
        + ",\n".join(dump([text, read, int(right)]) for text, read, right in cell.answers)
        + "\n]}"
        for cell in asked.cells
    )
    prompts = ",\n".join(dump(prompt) for prompt in asked.prompts)
    head = dump({"task": asked.task, "domain": asked.domain})[:-1]
    return f'{ANSWERS_HEAD}{head}, "prompts": [\n{prompts}\n], "cells": {{\n{cells}\n}}}}{ANSWERS_TAIL}'


def read_answers(text: str) -> dict[str, Any]:
    """What ``answers_script`` wrote."""
    return json.loads(text.removeprefix(ANSWERS_HEAD).removesuffix(ANSWERS_TAIL))


ANSWERS_HEAD = "window.answersLoaded("
ANSWERS_TAIL = ");\n"


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
