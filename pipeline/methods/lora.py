"""LoRA: a low-rank sum to chosen matrices, W + (α/r) B A (arXiv 2106.09685); the baseline, trained through peft.

Shapes: W (out, in), A (r, in), B (out, r); B starts at 0, so the adapted model is the base at step 0. A and B are
float32 over a base of any type. The file uses peft's own names for settings and tensors.

Two exact forms of one module: while training, peft's layers compute Wx + (α/r) B A x; for use, W + (α/r) B A is
written into the matrix once and the saved W is put back afterwards. So decoding costs what the base's does and
needs no peft; in a bfloat16 base the sum is rounded to bfloat16.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.core.adapters import Attachment, Factors
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.models import linear_modules

PREFIX = "base_model.model."  # what peft puts before a module's name


class Settings(Section, at="lora.adapter"):
    """Which matrices are adapted. modules: last parts of their names; alpha: α, the sum is scaled by α / rank."""

    rank: int
    alpha: int
    dropout: float
    modules: tuple[str, ...]


class _Dropouts(Attachment):
    """Drops inputs of A only where gradients are wanted: the base stays in evaluation mode throughout."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers

    def begin(self, rows: Tensor, prompt_mask: Tensor | None) -> None:
        for layer in self._layers:
            layer.train(torch.is_grad_enabled())


class Lora:
    """Trainable pairs A, B of the modules named in ``pairs``: module -> (A (r, in), B (out, r)), float32."""

    kind = "lora"

    def __init__(self, config: dict[str, Any], pairs: dict[str, tuple[Tensor, Tensor]]) -> None:
        self._config = config
        self.pairs = {module: (nn.Parameter(a), nn.Parameter(b)) for module, (a, b) in pairs.items()}

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def parameters(self) -> Iterable[nn.Parameter]:
        return [parameter for pair in self.pairs.values() for parameter in pair]

    def state(self) -> dict[str, Tensor]:
        """A and B under peft's names."""
        named = {}
        for module, (a, b) in self.pairs.items():
            named[f"{PREFIX}{module}.lora_A.weight"] = a.detach()
            named[f"{PREFIX}{module}.lora_B.weight"] = b.detach()
        return named

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.state().items():
                tensor.copy_(tensors[name])

    def retract(self) -> None:
        """A and B are free."""

    def extra_loss(self) -> None:
        """A and B are trained on the answers alone."""

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors | None) -> Iterator[Attachment]:
        """W + (α/r) B A in place of W inside the block; the saved W, bit by bit, after it."""
        scale = self._config["lora_alpha"] / self._config["r"]
        saved = {}
        try:
            with torch.no_grad():
                for module, (a, b) in self.pairs.items():
                    weight = _linear(model, module).weight
                    saved[module] = weight.clone()
                    added = b.to(weight.device) @ a.to(weight.device)
                    weight.copy_(weight.float() + scale * added)
            yield Attachment()
        finally:
            with torch.no_grad():
                for module, weight in saved.items():
                    _linear(model, module).weight.copy_(weight)

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        """peft's layers around the base's inside the block, computing with this adapter's A and B."""
        # Imported here: only training needs peft, everything else runs without it.
        from peft import LoraConfig, inject_adapter_in_model

        settings = {key: self._config[key] for key in ("r", "lora_alpha", "lora_dropout")}
        inject_adapter_in_model(LoraConfig(target_modules=list(self.pairs), **settings), model)
        layers: dict[str, Any] = {module: model.get_submodule(module) for module in self.pairs}
        try:
            for module, (a, b) in self.pairs.items():
                device = layers[module].base_layer.weight.device
                a.data, b.data = a.data.to(device), b.data.to(device)
                layers[module].lora_A["default"].weight = a
                layers[module].lora_B["default"].weight = b
            yield _Dropouts([layer.lora_dropout for layer in layers.values()])
        finally:
            for module, layer in layers.items():
                parent, _, name = module.rpartition(".")
                setattr(model.get_submodule(parent), name, layer.base_layer)
            del model.peft_config  # peft leaves its settings on the model


def _linear(model: nn.Module, module: str) -> nn.Linear:
    found = dict(model.named_modules()).get(module)
    if not isinstance(found, nn.Linear):
        raise UserError(
            f"expected the linear module '{module}' in the model, which has none of that name; the adapter was trained "
            "for another base, train it again"
        )
    return found


def initial(model: PreTrainedModel, settings: Settings, generator: torch.Generator) -> Lora:
    """An untrained adapter for ``model``: A uniform within ±1/√in as in peft, B zero."""
    pairs = {}
    for module in linear_modules(model, settings.modules):
        out_features, in_features = _linear(model, module).weight.shape
        a = (torch.rand(settings.rank, in_features, generator=generator) * 2 - 1) / in_features**0.5
        pairs[module] = (a, torch.zeros(out_features, settings.rank))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": list(settings.modules),
    }
    return Lora(config, pairs)


def from_state(config: dict[str, Any], tensors: dict[str, Tensor]) -> Lora:
    modules = [name.removeprefix(PREFIX).removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name]
    return Lora(
        config,
        {
            module: (tensors[f"{PREFIX}{module}.lora_A.weight"], tensors[f"{PREFIX}{module}.lora_B.weight"])
            for module in modules
        },
    )
