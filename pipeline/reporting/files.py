"""The report's files: texts by their paths, written a folder at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.core.artifacts import atomic_folder, write_text


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write a folder with these files and nothing else, whole or not at all."""
    with atomic_folder(folder) as temporary:
        for name, text in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text, encoding="utf-8")


def write_pages(pages: Mapping[str, str], *, page: Path, site: Path, runs: Path) -> None:
    """Write the pages of a report: those of the folders ``site`` and ``runs``, and the first one, ``index.html``."""
    write_folder(site, _within(pages, "site"))
    write_folder(runs, _within(pages, "runs"))
    write_text(page, pages["index.html"])


def _within(files: Mapping[str, str], folder: str) -> dict[str, str]:
    """The files of one folder, by their paths in it."""
    return {path.removeprefix(f"{folder}/"): text for path, text in files.items() if path.startswith(f"{folder}/")}


def bullets(sentences: Sequence[str]) -> str:
    """Sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def claims_file(report: str, claims: Sequence[str]) -> dict[str, str]:
    """What a report of its own may say, as a file: name to text."""
    return {"claims.md": f"# What may be said of {report}\n\n{bullets(claims)}\n"}
