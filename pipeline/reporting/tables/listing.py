"""A plain table: texts and numbers under headings, as data and as Markdown and CSV."""

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from pipeline.reporting.wording import cell_text, markdown_row


@dataclass(frozen=True)
class Listing:
    """Texts and numbers under headings. key: its file's name. note: what it says, or how to read it."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    note: str = ""

    @property
    def name(self) -> str:
        """What it is called in the menu: its title up to the first full stop."""
        return self.title.partition(". ")[0]

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it holds numbers."""
        return [any(isinstance(row[place], int | float) for row in self.rows) for place in range(len(self.columns))]


def listing_csv(listing: Listing) -> str:
    """The table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(listing.columns)
    writer.writerows([["" if value is None else value for value in row] for row in listing.rows])
    return text.getvalue()


def listing_markdown(listing: Listing) -> str:
    """The table as Markdown, under its title and note."""
    rows = [markdown_row([cell_text(value) for value in row]) for row in listing.rows]
    head = [markdown_row(listing.columns), markdown_row(["---"] * len(listing.columns))]
    return "\n".join([f"# {listing.title}", "", *([listing.note, ""] if listing.note else []), *head, *rows]) + "\n"


def listing_files(listing: Listing) -> dict[str, str]:
    """The table as files: name to text."""
    return {f"{listing.key}.md": listing_markdown(listing), f"{listing.key}.csv": listing_csv(listing)}


def read_listing(folder: Path, key: str) -> Listing:
    """The table that ``listing_markdown`` and ``listing_csv`` wrote into a folder."""
    head = (folder / f"{key}.md").read_text(encoding="utf-8").splitlines()
    note = "" if head[2].startswith("|") else head[2]
    columns, *rows = csv.reader(io.StringIO((folder / f"{key}.csv").read_text(encoding="utf-8")))
    values = tuple(tuple(_value(text) for text in row) for row in rows)
    return Listing(key, head[0].removeprefix("# "), tuple(columns), values, note)


def _value(text: str) -> str | int | float | None:
    """A cell of a CSV file: nothing, a number, or its text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text or None
