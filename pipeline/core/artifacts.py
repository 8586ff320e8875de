"""Files in, files out: JSON, JSONL and safetensors, each written whole or not at all.

Every file is byte-stable: the same content gives the same bytes in any process, so DVC can compare by hash.
Safetensors writes several metadata keys in no fixed order, so all provenance goes into one JSON value.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from pipeline.core.errors import UserError, refused
from pipeline.core.reading import AGAIN, checked, foreign, formed, json_of, read_whole
from pipeline.core.types import Example

if TYPE_CHECKING:  # torch takes seconds to import, and most who read or write a file have no tensors
    from torch import Tensor

METADATA_KEY = "selfadapt"
CHECKSUMS = "crc32"  # of each tensor, beside the provenance
CHECKED = 64 << 20  # bytes: what is larger is not held to its checksums whenever it is read


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """What keeps ``path`` from being written, as a UserError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if said := refused(error, path):
            raise said from None
        raise


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there if the block succeeds and removed if it does not."""
    with _one_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)  # mkstemp makes 0o600, which another user of the project could not read
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place if the block succeeds and is removed if it does not."""
    with _one_sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp makes 0o700, and safetensors writes 0o600: others could not read them
            for file in temporary.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json_of(read_whole(path, "JSON"), path)
    except FileNotFoundError:
        raise UserError(f"expected the file {path}, which is not there; run the stage that makes it") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        with checked(path, "lines of JSON").open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                row = json_of(line, f"line {number} of {path}")
                if not isinstance(row, dict):
                    raise UserError(f"expected an object on line {number} of {path}, got {line[:60].strip()}; {AGAIN}")
                rows.append(row)
    except FileNotFoundError:
        raise UserError(f"expected the file {path}, which is not there; run the stage that makes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected lines of JSON in {path}, got: {error}; {AGAIN}") from None
    return rows


def read_examples(path: Path) -> list[Example]:
    """The examples of one split of a task. Pictures stand in a folder beside the file, which names them."""
    with formed(path, "examples", "run 'dvc repro prepare'"):
        return [
            Example(**{**row, "messages": tuple(_found(message, path.parent) for message in row["messages"])})
            for row in read_jsonl(path)
        ]


def _found(message: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """A turn with its pictures' paths as they are seen from here."""
    if "images" not in message:
        return message
    return {**message, "images": [str(folder / picture) for picture in message["images"]]}


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"], meta: Mapping[str, Any]) -> None:
    """Write tensors and one JSON value of provenance as safetensors, on the CPU, with a checksum of each tensor."""
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    about = metadata(meta, {name: checksum(tensor) for name, tensor in stored.items()})
    with atomic(path) as temporary:
        save_file(stored, temporary, metadata=about)


def metadata(meta: Mapping[str, Any], sums: Mapping[str, int]) -> dict[str, str]:
    """The metadata of a safetensors file: its provenance, with the checksum of each tensor."""
    value = json.dumps({**meta, CHECKSUMS: sums}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return {METADATA_KEY: value}


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The tensors of a safetensors file (memory-mapped) and its provenance.

    A file of at most ``CHECKED`` bytes is held to its checksums, if it has any: a larger one is read a part at a time
    by whoever needs the part, and ``check_tensors`` is there for it.
    """
    if not path.is_file():
        raise UserError(f"expected the file {path}, which is not there; run the stage that makes it")
    try:
        with safe_open(path, framework="pt") as file:
            meta = _provenance(file, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, ValueError) as error:
        raise UserError(f"expected safetensors in {path}, got: {error}; remove it and run its stage again") from None
    sums = _sums(meta.pop(CHECKSUMS, {}), path)
    if path.stat().st_size <= CHECKED:
        _hold_to(tensors, sums, path)
    return tensors, meta


def read_provenance(path: Path) -> dict[str, Any]:
    """What a file of tensors says of itself; none of them is read."""
    with foreign(path, "safetensors", "remove it and run its stage again"), safe_open(path, framework="numpy") as file:
        return _provenance(file, path)


def check_tensors(path: Path) -> int:
    """Hold every tensor of a file to its checksum, however large it is; the number of those that have one."""
    with foreign(path, "safetensors", "remove it and run its stage again"), safe_open(path, framework="pt") as file:
        sums = _sums(_provenance(file, path).get(CHECKSUMS, {}), path)
        for name in file.keys():  # noqa: SIM118 - no mapping
            _hold_to({name: file.get_tensor(name)}, sums, path)
    return len(sums)


def _provenance(file: Any, path: Path) -> dict[str, Any]:
    """What an open file says of itself."""
    about = json_of((file.metadata() or {}).get(METADATA_KEY, "{}"), path)
    if not isinstance(about, dict):
        raise UserError(f"expected a mapping as the provenance in {path}, got {about!r:.40}; {AGAIN}")
    return about


def _sums(value: Any, path: Path) -> dict[str, Any]:
    """The checksums that a file has of its tensors."""
    if not isinstance(value, dict):
        raise UserError(f"expected a checksum of each tensor in {path}, got {value!r:.40}; {AGAIN}")
    return value


def _hold_to(tensors: Mapping[str, "Tensor"], sums: Mapping[str, int], path: Path) -> None:
    """Compare tensors with their checksums, where there are any."""
    for name, tensor in tensors.items():
        if name in sums and checksum(tensor) != sums[name]:
            raise UserError(
                f"expected the bytes of '{name}' in {path} as they were written, got others: the file is damaged; "
                "remove it, and run 'dvc checkout' or its stage again"
            )


def checksum(tensor: "Tensor") -> int:
    """CRC-32 of a tensor's bytes: it tells damage, not intent."""
    import torch

    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


def digest(path: Path) -> str:
    """sha256 of a file's bytes, or of a folder's file names and bytes."""
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        total.update(str(file.relative_to(path) if path.is_dir() else file.name).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                total.update(block)
    return total.hexdigest()
