"""The report as pages: from Jinja templates, a style sheet and two small scripts to files that need no network.

Pages open from the file system, where a browser reads no local file but through a tag: completions are therefore
JavaScript files that a script adds when they are asked for. A page never scrolls sideways; a wide table or figure
does, in a box of its own.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.reporting import papers as names
from pipeline.reporting.tables import listing as tables

FOLDER = Path(__file__).parent
STATIC = ("style.css", "site.js", "completions.js")


@dataclass(frozen=True)
class Page:
    """A page of the report.

    path: under the report's folder. name: in the menu. template: of the folder ``templates``; content: what it shows.
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
        """What is said where it cannot be seen, as it stands in the SVG."""
        found = re.search(r'aria-label="([^"]*)"', self.svg)
        return found.group(1) if found else self.caption

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in points."""
        width, height = (float(re.search(rf'{name}="([\d.]+)pt"', self.svg).group(1)) for name in ("width", "height"))  # type: ignore[union-attr]
        return round(width), round(height)


@dataclass(frozen=True)
class Answers:
    """One cell's answers to a task's prompts, in their order: text, what was read off it (or None), right or not."""

    cell: str
    row: str
    seed: int
    answers: Sequence[tuple[str, str | None, bool]]


@dataclass(frozen=True)
class Asked:
    """The test prompts of a task, each with id, text and reference answer, and what every cell answered."""

    task: str
    domain: str
    prompts: Sequence[tuple[str, str, str]]
    cells: Sequence[Answers] = field(default=())


def render(page: Page, menu: Sequence[Page], shared: Mapping[str, Any]) -> str:
    """A page as text. menu: the pages it leads to; shared: what every page says."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": tables.percent,
        "signed": tables.signed,
        "row_name": names.row_name,
        "cell_text": tables.cell_text,
        "words": lambda name: name.replace("_", " "),
    }
    environment.globals |= {"reading": tables.READING}
    return environment.get_template(page.template).render(page=page, menu=menu, **shared, **page.content)


def static() -> dict[str, str]:
    """The style sheet and the scripts, by path."""
    return {f"site/{name}": (FOLDER / "static" / name).read_text(encoding="utf-8") for name in STATIC}


def answers_script(asked: Asked) -> str:
    """A task's prompts and answers as a script, a line each, so that two commits' files differ where they do."""
    cells = ",\n".join(
        f"{dump(one.cell)}: "
        + dump({"row": one.row, "by": names.row_name(one.row), "seed": one.seed})[:-1]
        + ', "answers": [\n'
        + ",\n".join(dump([text, read, int(right)]) for text, read, right in one.answers)
        + "\n]}"
        for one in asked.cells
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
