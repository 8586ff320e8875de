"""Lines of JSON, compressed: small enough to be committed, with the same bytes each time they are written."""

import json
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import atomic
from pipeline.core.errors import UserError


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, compressed by xz, which keeps no date and no name."""
    text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n" for row in rows)
    with atomic(path) as temporary:
        temporary.write_bytes(lzma.compress(text.encode(), preset=9))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What ``write_lines`` wrote. Raises UserError where it is damaged."""
    try:
        return [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
    except (OSError, lzma.LZMAError, ValueError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"expected compressed lines of JSON in {path}, got: {problem}; publish the run again, or remove it"
        ) from None
