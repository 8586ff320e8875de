"""The contract of everything that is trained: an ``Adapter``.

An adapter changes what a frozen base model computes as long as it is attached, and leaves the model bit-identical
afterwards. It is stored as one safetensors file that names its ``kind``; the module ``pipeline.methods.<kind>`` reads
it back. Nothing that attaches an adapter knows which method made it.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from torch import BoolTensor, LongTensor, Tensor, nn

from pipeline.core.artifacts import read_tensors, write_jsonl, write_tensors
from pipeline.core.errors import UserError


class Factors:
    """The singular value decompositions of a base model's matrices, read from a file when first asked for.

    W = U diag(σ) Vᵀ, float32: ``factors[module] == (U (out, r), σ (r,) descending, Vᵀ (r, in))``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return read_tensors(self.path)[0]

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Names of the decomposed modules, by layer."""
        names = [name.removesuffix(".sigma") for name in self._tensors if name.endswith(".sigma")]
        return tuple(sorted(names, key=natural_order))

    def __getitem__(self, module: str) -> tuple[Tensor, Tensor, Tensor]:
        try:
            return self._tensors[f"{module}.u"], self._tensors[f"{module}.sigma"], self._tensors[f"{module}.vt"]
        except KeyError:
            raise UserError(
                f"expected the decomposition of '{module}' in {self.path}, which has {len(self.modules)} others; "
                "run the stage factorize for this base model and these modules"
            ) from None


def natural_order(name: str) -> tuple:
    """A sort key under which ``layers.2`` comes before ``layers.10``."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


class Attachment:
    """What an attached adapter is told before each forward pass. The default needs to know nothing."""

    def begin(self, rows: LongTensor, prompt_mask: BoolTensor | None) -> None:
        """A forward pass over a batch follows.

        rows: (batch,) the row of the adapter that each row of the batch uses. An adapter with one mixture for each
            prompt looks up its coefficients by it; the decode loop drops, repeats and reorders the rows of a batch.
        prompt_mask: (batch, seq) True on the tokens of the prompt, False on padding and on the answer; None on a decode
            step, which holds generated tokens only.
        """

    tail = 1
    """How many of a prompt's last tokens must stand in one pass, since the adapter treats them specially."""

    def begin_part(self, rows: LongTensor, prompt_mask: BoolTensor, *, before: int, after: int) -> None:
        """As ``begin``, for a pass over a part of each prompt: for adapters that edit tokens by their position.

        before: tokens of each prompt that an earlier pass computed.
        after: tokens of each prompt that a later pass will compute, at least; 0 where the prompt ends in this pass.
        """
        self.begin(rows, prompt_mask)

    def alike(self, rows: LongTensor) -> list[int] | None:
        """A number for each of ``rows``. Rows with the same number compute equal tokens equally, whatever stands behind
        them, so a prefix that they share is computed once. By default, all rows are alike.

        None: a token is computed by what stands behind it, and nothing can be shared.
        """
        return [0] * len(rows)

    def rows(self, ids: Sequence[str]) -> Sequence[int]:
        """The row of this adapter that each prompt uses, by the prompts' ids (default: its place)."""
        return range(len(ids))


class Adapter(Protocol):
    """A trained thing.

    ``kind`` is the name of its module in ``pipeline.methods``, which has
    ``from_state(config, tensors) -> Adapter``.
    """

    kind: str

    def config(self) -> dict[str, Any]:
        """What is needed, beside the tensors, to build it again. JSON values."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Its tensors, by name."""
        ...

    def attached(self, model: nn.Module, factors: Factors) -> AbstractContextManager[Attachment]:
        """Change ``model`` inside the block; leave it bit-identical afterwards.

        factors: the base model's SVD, read only by adapters that need it.
        """
        ...


def method_module(name: str, *parts: str, where: str = "params.yaml") -> ModuleType:
    """The module of ``pipeline.methods`` with this name, if it has all of ``parts``; a UserError if not.

    where: what names the method, for the error.
    """
    try:
        module = importlib.import_module(f"pipeline.methods.{name}")
    except ModuleNotFoundError as error:
        if not f"pipeline.methods.{name}.".startswith(f"{error.name}."):
            raise  # the method is there, and what it imports is not
        known = sorted(path.stem for path in (Path(__file__).parents[2] / "methods").glob("[a-z]*.py"))
        raise UserError(
            f"{where}: expected a method out of {', '.join(known)}, got '{name}'; correct the name or add "
            f"pipeline/methods/{name}.py"
        ) from None
    if missing := [part for part in parts if not hasattr(module, part)]:
        raise UserError(
            f"{where}: expected a method whose module has {' and '.join(parts)}, got '{name}', whose module has no "
            f"'{missing[0]}'; name another"
        )
    return module


def save_adapter(path: Path, adapter: Adapter, provenance: Mapping[str, Any]) -> None:
    """Write an adapter and where it came from (task, seed, base model, steps; nothing that varies by run)."""
    meta = {"kind": adapter.kind, "config": adapter.config(), "provenance": dict(provenance)}
    write_tensors(path, adapter.state(), meta)


def save_trained(
    adapter: Adapter, rows: Sequence[Mapping[str, Any]], *, path: Path, curve: Path, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a trained adapter and its curve; returns the training's metrics.

    rows: of the curve, the first before any step, one of them ``chosen``.
    provenance: of the adapter, its number of ``parameters`` among it.
    """
    measured = chosen_state(rows)
    save_adapter(path, adapter, {**provenance, "steps": measured["chosen_step"]})
    write_jsonl(curve, rows)
    return {"parameters": provenance["parameters"], **measured}


def chosen_state(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The step of a curve that validation chose, what it measured there, and before any step.

    rows: of the curve, as ``save_trained`` takes them.
    """
    chosen = next(row for row in rows if row["chosen"])
    return {
        "chosen_step": chosen["step"],
        "validation_before": rows[0]["validation"],
        "validation": chosen["validation"],
    }


def load_adapter(path: Path) -> tuple[Adapter, dict[str, Any]]:
    """An adapter and its provenance."""
    tensors, meta = read_tensors(path)
    if "kind" not in meta:
        raise UserError(f"expected an adapter in {path}, got a safetensors file without one; run the stage again")
    module = method_module(meta["kind"], "from_state", where=str(path))
    return module.from_state(meta["config"], tensors), meta["provenance"]
