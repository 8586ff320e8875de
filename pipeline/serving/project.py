"""What a project's folder holds, read: its model's factors, experts, adapters and mixtures, each found to fit."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.core.config import Section, lookup
from pipeline.core.errors import UserError
from pipeline.methods.lora import Lora
from pipeline.methods.svf import SvfAdapter
from pipeline.model.forward.adapters import Adapter, Factors, load_adapter
from pipeline.model.forward.base import Compute, decoder_layers, layer_of
from pipeline.serving.forms import ALONE, Form, form_of
from pipeline.serving.names import BASE, Names


def intact(path: Path, adapter: Adapter) -> Adapter:
    """The adapter read from ``path``, if all its numbers are numbers."""
    for name, tensor in adapter.state().items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"expected finite numbers in {path}, got NaN or infinity in '{name}'; train it again")
    return adapter


class Project(Names):
    """A project's folder, whose artifacts are read."""

    def forms(self, provenance: Mapping[str, Any]) -> list[Form]:
        """The form of each task that an adapter was trained on or adapted to; ``ALONE`` where that has none."""
        known = lookup(self.params, "tasks")
        tasks = provenance.get("tasks") or [provenance.get("task")]
        return [form_of(task, self.folder / "data/tasks" / task) if task in known else ALONE for task in tasks]

    def section(self, kind: type[Section]) -> Any:
        """A section of the project's settings."""
        return kind.read(self.params, {})

    @cached_property
    def factors(self) -> Factors:
        """The singular value decomposition of the base model."""
        return Factors(self.artifact(f"svd/{BASE}"))

    def compute(self) -> Compute:
        """How to compute answers: as the settings say, but in float32 on a CPU.

        There, float32 is no slower, and an answer then does not depend on who else is in the batch: in bfloat16 a
        product over another number of rows rounds differently, and greedy decoding takes another path.
        """
        compute = self.section(Compute)
        return compute.model_copy(update={"dtype": "float32"}) if compute.device == "cpu" else compute

    def read(self, path: Path) -> tuple[Adapter, dict[str, Any]]:
        """An adapter and its provenance."""
        if not path.is_file():
            raise UserError(f"expected the file {path}, which is not there; run 'dvc repro', which makes it")
        try:
            adapter, provenance = load_adapter(path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"expected an adapter in {path}, got a file that lacks some of it ({error!r}); remove it and run its "
                "stage again"
            ) from None
        return intact(path, adapter), provenance

    def read_svf(self, path: Path) -> SvfAdapter:
        """SVF experts and how they are mixed."""
        adapter, _ = self.read(path)
        if not isinstance(adapter, SvfAdapter):
            raise UserError(
                f"expected SVF experts in {path}, got an adapter of kind '{adapter.kind}'; name another file"
            )
        self.check_svf(str(path), adapter)
        return adapter

    def check_svf(self, name: str, adapter: SvfAdapter) -> None:
        """Whether experts fit this base model: one scale for each singular value, a mixture for each layer."""
        for module, z in adapter.experts.items():
            rank = len(self.factors[module][1])
            if z.dim() != 2 or z.shape[1] != rank:
                raise UserError(
                    f"expected {rank} scales for '{module}' in {name}, got {list(z.shape)}; the expert belongs to "
                    "another base model"
                )
        depth = 1 + max(layer_of(module) for module in adapter.experts)
        if adapter.mixture.axis == "layer" and len(adapter.mixture.coefficients) < depth:
            raise UserError(
                f"expected coefficients for {depth} layers in {name}, got {len(adapter.mixture.coefficients)}; the "
                "mixture belongs to another base model"
            )

    def check_lora(self, name: str, adapter: Lora, model: nn.Module) -> None:
        """Whether the low-rank sums fit this base model."""
        weights = {module: part.weight for module, part in model.named_modules() if isinstance(part, nn.Linear)}
        for module, (a, b) in adapter.pairs.items():
            if module not in weights or (b.shape[0], a.shape[1]) != tuple(weights[module].shape):
                raise UserError(
                    f"expected a matrix '{module}' of {b.shape[0]} × {a.shape[1]} in the base model, for {name}, got "
                    "none; it belongs to another base model"
                )

    def check_edits(self, name: str, adapter: Adapter, model: nn.Module) -> None:
        """Whether edits of hidden states fit this base model."""
        depth, hidden = len(decoder_layers(model)), model.config.get_text_config().hidden_size
        layers, rotation = adapter.config().get("layers", ()), adapter.state().get("rotation")
        if rotation is None or rotation.shape[-1] != hidden or max(layers, default=0) >= depth:
            shape = "none" if rotation is None else f"layers up to {max(layers)} of {rotation.shape[-1]}"
            raise UserError(
                f"expected edits of at most {depth} layers of {hidden} numbers in {name}, got {shape}; it belongs to "
                "another base model"
            )
