"""What the adapters trained through peft have in common; each method's own part is its module of ``pipeline.methods``.

Tensors and settings have peft's own names. An adapted module is computed in two ways. In training, peft's layers
compute it with this adapter's tensors in place of theirs. In use, the adapted matrix is written into the model once,
and the saved one is put back afterwards, so that decoding costs what the base model's does and needs no peft. In a
bfloat16 base the written matrix is rounded to bfloat16. Trained tensors are float32 over a base of any type.

One object serves all trainers: it is the adapter that is saved and the learner that is trained.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import Attachment, Factors
from pipeline.model.forward.base import linear_modules

PREFIX = "base_model.model."  # what peft puts before a module's name


class _Dropouts(Attachment):
    """Dropout only where gradients are wanted: the base stays in evaluation mode throughout."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._dropouts = [part for layer in layers for part in layer.modules() if isinstance(part, nn.Dropout)]

    def begin(self, rows: Tensor, prompt_mask: Tensor | None) -> None:
        for dropout in self._dropouts:
            dropout.train(torch.is_grad_enabled())


class Tuner:
    """An adapter that changes the linear modules ``modules``.

    config: in peft's words. trained: name → what is trained, float32. frozen: name → what is saved beside it.
    """

    kind: str
    modules: tuple[str, ...]

    def __init__(
        self, config: Mapping[str, Any], trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor] | None = None
    ) -> None:
        self._config = dict(config)
        self.trained = {name: nn.Parameter(tensor) for name, tensor in trained.items()}
        self.frozen = dict(frozen or {})
        self._layers: dict[str, Any] = {}

    # ---- what each method defines ------------------------------------------------------------------------------------

    def settings(self) -> Any:
        """peft's configuration for exactly these modules."""
        raise NotImplementedError

    def install(self, module: str, layer: Any) -> None:
        """Make peft's layer of a module compute with this adapter's tensors."""
        raise NotImplementedError

    def write(self, module: str, linear: nn.Linear) -> None:
        """Write the adapted weight (and bias) into a module. Called without gradients."""
        raise NotImplementedError

    # ---- the contract of adapters (``pipeline.model.forward.adapters``) and of trainers ------------------------------

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.trained.items()} | self.frozen

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(tensors[name])

    def parameters(self) -> list[nn.Parameter]:
        return list(self.trained.values())

    def adapter(self, name: str) -> "Tuner":
        """What is saved: this object."""
        return self

    def retract(self) -> None:
        """Nothing to restore after an optimizer step: what is trained is free."""

    def extra_loss(self) -> None:
        """Nothing beside the loss of the answers."""

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors | None) -> Iterator[Attachment]:
        """The adapted matrices in place of W inside the block; W, to the bit, after it."""
        saved: dict[nn.Parameter, Tensor] = {}
        try:
            with torch.no_grad():
                for module in self.modules:
                    linear = linear_of(model, module)
                    saved |= {parameter: parameter.clone() for parameter in linear.parameters()}
                    self.write(module, linear)
            yield Attachment()
        finally:
            with torch.no_grad():
                for parameter, before in saved.items():
                    parameter.copy_(before)

    def sampling(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        return self.attached(model, None)

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        """Inside the block, peft's layers stand around the base's and compute with this adapter's tensors."""
        base = {module: linear_of(model, module) for module in self.modules}
        # Made once: policy-gradient training attaches anew for every micro-batch.
        if any(module not in self._layers or self._layers[module].base_layer is not base[module] for module in base):
            self._layers = inserted(model, self.settings(), self.modules)
        try:
            for module, layer in self._layers.items():
                self.install(module, layer)
                _put(model, module, layer)
            yield _Dropouts(self._layers.values())
        finally:
            for module, linear in base.items():
                _put(model, module, linear)


def inserted(model: nn.Module, settings: Any, modules: Iterable[str]) -> dict[str, Any]:
    """peft's layers for ``modules`` by name: peft makes them inside ``model``, and they are taken out again."""
    # Imported here: only training needs peft, everything else runs without it.
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    PEFT_TYPE_TO_TUNER_MAPPING[settings.peft_type](model, settings, "default")
    layers: dict[str, Any] = {module: model.get_submodule(module) for module in modules}
    for module, layer in layers.items():
        _put(model, module, layer.base_layer)
    del model.peft_config  # peft leaves its settings on the model
    return layers


def _put(model: nn.Module, module: str, layer: nn.Module) -> None:
    parent, _, name = module.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)


def linear_of(model: nn.Module, module: str) -> nn.Linear:
    """The linear module of this name. UserError if the model has none."""
    try:
        linear = model.get_submodule(module)
    except AttributeError:
        linear = None
    if not isinstance(linear, nn.Linear):
        raise UserError(
            f"expected the linear module '{module}' in the model, which has none of that name; the adapter was trained "
            "for another base, train it again"
        )
    return linear


def moved(parameter: nn.Parameter, like: Tensor) -> nn.Parameter:
    """The same parameter, moved to the device of ``like``."""
    parameter.data = parameter.data.to(like.device)
    return parameter


# ---- A and B, which LoRA and DoRA have -------------------------------------------------------------------------------


class LowRankSettings(Section):
    """Which matrices are adapted, and how.

    rank: r of A and B. alpha: α; B A is scaled by α / rank. dropout: of what A reads, in training.
    modules: last parts of the names of the adapted matrices.
    """

    rank: int = Field(ge=1)
    alpha: int
    dropout: float = Field(ge=0, lt=1)
    modules: tuple[str, ...] = Field(min_length=1)


def low_rank_config(settings: LowRankSettings) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": list(settings.modules),
    }


def low_rank_start(model: PreTrainedModel, settings: LowRankSettings, generator: torch.Generator) -> dict[str, Tensor]:
    """The start of each module's A (r, in), uniform within ±1/√in as in peft, and B (out, r), zero; by peft's names."""
    tensors = {}
    for module in linear_modules(model, settings.modules):
        out_features, in_features = linear_of(model, module).weight.shape
        a = (torch.rand(settings.rank, in_features, generator=generator) * 2 - 1) / in_features**0.5
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = torch.zeros(out_features, settings.rank)
    return tensors


class LowRank(Tuner):
    """Trainable pairs A, B of each module."""

    def __init__(self, config: Mapping[str, Any], trained: Mapping[str, Tensor]) -> None:
        super().__init__(config, trained)
        suffix = ".lora_A.weight"
        names = [name for name in trained if name.endswith(suffix)]
        self.modules = tuple(name.removeprefix(PREFIX).removesuffix(suffix) for name in names)
        for module in self.modules:
            self.part(module, "lora_B.weight")  # half a pair is no adapter: a KeyError

    def part(self, module: str, name: str) -> nn.Parameter:
        return self.trained[f"{PREFIX}{module}.{name}"]

    @property
    def pairs(self) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
        """Module → (A (r, in), B (out, r))."""
        return {
            module: (self.part(module, "lora_A.weight"), self.part(module, "lora_B.weight")) for module in self.modules
        }

    def settings(self) -> Any:
        from peft import LoraConfig

        known = ("r", "lora_alpha", "lora_dropout", "use_dora")
        chosen = {key: self._config[key] for key in known if key in self._config}
        return LoraConfig(target_modules=list(self.modules), **chosen)

    def install(self, module: str, layer: Any) -> None:
        weight = layer.base_layer.weight
        layer.lora_A["default"].weight = moved(self.part(module, "lora_A.weight"), weight)
        layer.lora_B["default"].weight = moved(self.part(module, "lora_B.weight"), weight)

    def sum_of(self, module: str, weight: Tensor) -> Tensor:
        """W + (α/r) B A, float32."""
        a, b = self.part(module, "lora_A.weight"), self.part(module, "lora_B.weight")
        scale = self._config["lora_alpha"] / self._config["r"]
        added = b.to(weight.device) @ a.to(weight.device)
        return weight.float() + scale * added
