"""Tensors written one after the other, for a file that is larger than the memory.

The bytes are those that ``artifacts.write_tensors`` would write of all of them at once.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.artifacts import atomic, checksum, metadata

if TYPE_CHECKING:
    from torch import Tensor


def stream_tensors(path: Path, tensors: Iterable[tuple[str, "Tensor"]], meta: Mapping[str, Any]) -> None:
    """Write float32 tensors as safetensors, each as it comes, in the order of their names.

    tensors: (name, tensor) pairs, by ascending name. meta: see ``write_tensors``.
    The values are kept in a nameless file until all are known, for the header that goes before them has their
    checksums: for a while the disk holds them twice. Raises ValueError for another order or type.
    """
    import torch

    entries: dict[str, dict[str, Any]] = {}
    sums: dict[str, int] = {}
    with atomic(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as values:
        last = ""
        for name, tensor in tensors:
            if name <= last or tensor.dtype != torch.float32:
                raise ValueError(
                    f"expected float32 tensors by ascending name, got {name} of {tensor.dtype} after {last}"
                )
            stored, begin = tensor.detach().cpu().contiguous(), values.tell()
            values.write(memoryview(stored.reshape(-1).view(torch.uint8).numpy()))
            entries[name] = {"dtype": "F32", "shape": list(stored.shape), "data_offsets": [begin, values.tell()]}
            sums[name], last = checksum(stored), name
        about = {"__metadata__": metadata(meta, sums)}
        header = json.dumps({**about, **entries}, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)
        values.seek(0)
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            shutil.copyfileobj(values, file, 1 << 22)
