"""Where a stage keeps what it needs to go on after it was killed.

A checkpoint lives outside the stage's outputs, in a folder named by a hash of everything that determines the
run (arguments, settings, bytes of the inputs, code): a stage that is started again with anything changed finds
an empty folder, one started again unchanged goes on and ends with the same bytes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.core.artifacts import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoints:
    """Named states of one run; each is written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, tensors: Mapping[str, "Tensor"], meta: Mapping[str, Any]) -> None:
        write_tensors(self.folder / f"{name}.safetensors", tensors, meta)

    def load(self, name: str) -> tuple[dict[str, "Tensor"], dict[str, Any]] | None:
        """The state last saved under ``name``, or None. Cloned: the file may be replaced while it is in use."""
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        tensors, meta = read_tensors(path)
        return {key: tensor.clone() for key, tensor in tensors.items()}, meta

    def within(self, name: str) -> Self:
        """Those of a part of the run."""
        return type(self)(self.folder / name)

    def clear(self) -> None:
        """Forget the run: it has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)
