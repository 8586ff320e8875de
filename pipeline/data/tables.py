"""Where the rows of a benchmark come from: public repositories at pinned commits, or a mirror folder.

A mirror is used where SELFADAPT_MIRROR names its folder. Its MANIFEST.json is a list of ``{"local": path, "sha256":
..., "bytes": ...}``, which every file is checked against. Without a mirror, files of the model hub are fetched at a
commit by huggingface_hub (which honours HF_HUB_OFFLINE and its cache) and files of GitHub at a commit by HTTPS; a
sha256 in the task's file is checked. Either way the rows are read by ``datasets`` or the standard library, and checked
for the columns that the task reads.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.types import Origin, Table

MIRROR = "SELFADAPT_MIRROR"
MANIFEST = "MANIFEST.json"
SECONDS = 60  # without a word from a server

Row = dict[str, Any]


def mirror() -> Path | None:
    """The mirror folder, where one is named."""
    name = os.environ.get(MIRROR)
    return Path(name).expanduser() if name else None


def read_table(name: str, table: Table) -> list[Row]:
    """All rows of a table. name: for errors. Raises UserError where its source has not got it as pinned."""
    folder = mirror()
    files: Iterable[tuple[str, bytes]]
    if folder is None:
        _has_origins(name, table)
        files = [(f"{origin.repository}/{origin.path}", _fetched(origin)) for origin in table.origins]
    elif table.mirror:
        manifest = _manifest(folder)
        files = [(path, _mirrored(folder, path, manifest)) for path in table.mirror]
    else:
        raise UserError(
            f"expected {name} in the mirror {folder}, which has not got it; unset {MIRROR} to take it from its origin"
        )
    rows = [row for path, content in files for row in _checked(path, _rows(path, content, table), table.columns)]
    if not rows:
        raise UserError(f"expected rows in {name}, got none; correct its source in the task's file")
    return rows


def available(name: str, table: Table) -> None:
    """Raise UserError where it can be told without the network that a table cannot be read."""
    folder = mirror()
    if folder is not None:
        read_table(name, table)
        return
    _has_origins(name, table)
    for origin in table.origins:
        if len(origin.revision) != 40:
            raise UserError(
                f"expected a commit (40 hex digits) of {origin.repository}, got '{origin.revision}'; pin it"
            )


def _has_origins(name: str, table: Table) -> None:
    """Raise UserError for a table that only a mirror has."""
    if not table.origins:
        raise UserError(
            f"expected a mirror that has {name}, which no repository is known to have; put {', '.join(table.mirror)} "
            f"into a folder with a {MANIFEST}, and name it by {MIRROR}"
        )


# ---- the mirror ----------------------------------------------------------------------------------------------------


def _manifest(folder: Path) -> Mapping[str, Row]:
    path = folder / MANIFEST
    try:
        return {entry["local"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        raise UserError(f"expected a mirror with a {MANIFEST} in {folder}, found none; correct {MIRROR}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(
            f"expected a list of files in {path}, got something else ({error}); get the mirror again"
        ) from None


def _mirrored(folder: Path, name: str, manifest: Mapping[str, Row]) -> bytes:
    remedy = "get the mirror again"
    if name not in manifest:
        raise UserError(f"expected {name} in {folder / MANIFEST}, which does not list it; {remedy}")
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise UserError(f"expected the file {folder / name}, got: {error.strerror}; {remedy}") from None
    expected = manifest[name]
    if len(content) < expected.get("bytes", 0):
        raise UserError(
            f"expected {expected['bytes']} bytes in {folder / name}, got {len(content)}: it is truncated; {remedy}"
        )
    _check(str(folder / name), content, expected["sha256"], remedy)
    return content


def _check(path: str, content: bytes, expected: str, remedy: str) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != expected:
        raise UserError(f"expected sha256 {expected} of {path}, got {sha256}: it is not the pinned file; {remedy}")


# ---- the origins ---------------------------------------------------------------------------------------------------


def _fetched(origin: Origin) -> bytes:
    place = f"{origin.path} of {origin.repository}@{origin.revision[:12]}"
    content = _from_hub(origin, place) if origin.host == "hub" else _from_github(origin, place)
    if origin.sha256 is not None:
        _check(place, content, origin.sha256, "try again, or correct the pin in the task's file")
    return content


def _from_hub(origin: Origin, place: str) -> bytes:
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            hf_hub_download(origin.repository, origin.path, repo_type="dataset", revision=origin.revision)
        ).read_bytes()
    except (OSError, ValueError) as error:  # the hub's errors, offline ones included, derive from these
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"expected {place} from the model hub or its local cache, got: {said}; check the network and "
            f"HF_HUB_OFFLINE, or set {MIRROR} to a mirror folder"
        ) from None


def _from_github(origin: Origin, place: str) -> bytes:
    url = f"https://raw.githubusercontent.com/{origin.repository}/{origin.revision}/{origin.path}"
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.read()
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"expected {place} from GitHub, got: {error}; check the network, or set {MIRROR} to a mirror folder"
        ) from None


# ---- files to rows -------------------------------------------------------------------------------------------------


def _rows(path: str, content: bytes, table: Table) -> list[Any]:
    name = path.removesuffix(".gz")
    try:
        if path.endswith(".gz"):
            content = gzip.decompress(content)
        if name.endswith(".parquet"):
            import pyarrow.parquet
            from datasets import Dataset

            return Dataset(pyarrow.parquet.read_table(io.BytesIO(content))).to_list()
        text = content.decode("utf-8-sig")
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if name.endswith(".json"):
            whole = json.loads(text)
            return whole.get(table.within, whole) if isinstance(whole, dict) else whole
        if name.endswith(".tsv"):
            lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
            names = table.header or tuple(next(lines))
            return [dict(zip(names, line, strict=False)) for line in lines]
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise UserError(f"expected rows in {path}, got: {error}; the file is damaged: get it again") from None
    raise UserError(f"expected a parquet, JSON or TSV file, got {path}; correct the task's file")


def _checked(path: str, rows: Any, columns: tuple[str, ...]) -> list[Row]:
    if not isinstance(rows, list):
        raise UserError(f"expected a list of rows in {path}, got {type(rows).__name__}; its schema has changed")
    for number, row in enumerate(rows):
        missing = [column for column in columns if not isinstance(row, dict) or column not in row]
        if missing:
            has = ", ".join(sorted(map(str, row))) if isinstance(row, dict) else type(row).__name__
            raise UserError(
                f"expected the column '{missing[0]}' in row {number} of {path}, which has {has}; "
                "its schema has changed: correct the task's file"
            )
    return rows
