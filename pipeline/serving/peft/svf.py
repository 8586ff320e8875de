"""SVF (``pipeline.methods.svf``) as a method of peft's.

Each adapted matrix computes y = Wx + U diag(σ ⊙ δ) Vᵀx with one vector δ = z − 1 (r,), which starts at 0: the adapted
model is then the base model to the bit. δ is stored and trained instead of z because a trainer's weight decay draws
towards 0, which has to be the base model and not an erased matrix.

U, σ and V are not saved: they are the base model's, and are computed from its weights when an adapter is put in. Their
signs, which a decomposition is free to choose, cancel. ``factors`` names a file that has them.

Several adapters that are active at once add up, δ' = Σ δ, as peft's LoRA does. ``add_weighted_adapter`` mixes experts,
δ' = Σ α δ; where Σ α = 1 that is z' = Σ α z (Transformer², Section 3.2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.core.errors import UserError
from pipeline.methods.svf import decompose
from pipeline.model.forward.adapters import Factors
from pipeline.serving.peft import Kind, register


@dataclass
class SvfConfig(PeftConfig):
    """Which matrices are scaled.

    target_modules: names or last parts of names of linear modules, a regular expression, or ``all-linear`` (the
        default: all but the output layer, as in Transformer²).
    exclude_modules, layers_to_transform, layers_pattern, modules_to_save: as for peft's LoRA.
    factors: a file with the base model's decomposition, as the stage ``factorize`` writes it; without one it is
        computed. It is a path of this machine, and is not saved.
    """

    target_modules: Any = None
    exclude_modules: Any = None
    layers_to_transform: Any = None
    layers_pattern: Any = None
    modules_to_save: list[str] | None = None
    factors: str | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = Kind.SVF
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), list | tuple):
                setattr(self, name, set(value))

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "factors": None}


class SvfLinear(nn.Module, BaseTunerLayer):
    """A linear module with a vector δ (r,), float32, for each adapter; 0 at the start.

    factors: U (out, r), σ (r,), Vᵀ (r, in) of its weight.
    """

    adapter_layer_names = ("svf_delta",)
    other_param_names = ()

    def __init__(self, base_layer: nn.Module, factors: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        self.base_layer = base_layer
        weight = self.get_base_layer().weight
        u, sigma, vt = factors
        self.register_buffer("svf_u", u.to(weight), persistent=False)
        self.register_buffer("svf_sigma", sigma.to(weight.device), persistent=False)
        self.register_buffer("svf_vt", vt.to(weight), persistent=False)
        self.svf_delta = nn.ParameterDict()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter: Any = []

    def update_layer(self, adapter_name: str) -> None:
        """Add an adapter."""
        self.svf_delta[adapter_name] = nn.Parameter(torch.zeros_like(self.svf_sigma))

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """W' − W = U diag(σ ⊙ δ) Vᵀ, (out, in)."""
        scale = (self.svf_sigma * self.svf_delta[adapter_name]).to(self.svf_u.dtype)
        return (self.svf_u * scale) @ self.svf_vt

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write adapters into W. safe_merge: only if what comes of it is finite."""
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.svf_delta:
                weight = self.get_base_layer().weight.data + self.get_delta_weight(name)
                if safe_merge and not bool(weight.isfinite().all()):
                    raise ValueError(f"expected finite weights, got NaN or infinity; the adapter '{name}' is broken")
                self.get_base_layer().weight.data = weight
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take them out again."""
        while self.merged_adapters:
            self.get_base_layer().weight.data -= self.get_delta_weight(self.merged_adapters.pop())

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        output = self.base_layer(hidden, *args, **kwargs)
        active = [name for name in self.active_adapters if name in self.svf_delta]
        if self.disable_adapters or self.merged or not active:
            return output
        delta = torch.stack([self.svf_delta[name] for name in active]).sum(0)
        components = nn.functional.linear(hidden.to(self.svf_vt.dtype), self.svf_vt)
        scaled = components * (self.svf_sigma * delta).to(components.dtype)
        return output + nn.functional.linear(scaled, self.svf_u).to(output.dtype)


class SvfTuner(BaseTuner):
    """Puts ``SvfLinear`` in place of the modules that a configuration names."""

    prefix = "svf_"
    tuner_layer_cls = SvfLinear

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """As peft's. A bar shows how many matrices are decomposed, where that takes a while."""
        with tqdm(desc="decomposing", unit=" matrices", delay=2, disable=None, leave=False) as self._bar:
            super().inject_adapter(model, adapter_name, *args, **kwargs)

    def _prepare_adapter_config(self, peft_config: SvfConfig, model_config: Mapping[str, Any]) -> SvfConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = "all-linear"
        return peft_config

    def _create_and_replace(
        self,
        peft_config: SvfConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        layer = target
        if not isinstance(layer, SvfLinear):
            layer = SvfLinear(target, self._factors_of(target, current_key, peft_config.factors))
            self._replace_module(parent, target_name, layer, target)
        layer.update_layer(adapter_name)
        layer.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)

    def _factors_of(self, target: nn.Module, key: str, path: str | None) -> tuple[Tensor, Tensor, Tensor]:
        linear = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        weight: Any = getattr(linear, "weight", None)
        if not (isinstance(linear, nn.Linear) and weight.is_floating_point() and weight.dim() == 2):
            raise UserError(
                f"expected a linear module with dense weights as '{key}', got {type(linear).__name__}, whose singular "
                "values cannot be scaled; name others by target_modules, or load the model without quantisation"
            )
        self._bar.update()
        if path:
            return Factors(Path(path))[key]
        with torch.no_grad():
            return decompose(weight.detach().float().cpu())

    def add_weighted_adapter(self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str) -> None:
        """A new adapter of others that are there, δ' = Σ α δ. weights: α of each."""
        if unknown := [name for name in adapters if name not in self.peft_config]:
            raise UserError(
                f"expected adapters out of {', '.join(self.peft_config)}, got '{unknown[0]}'; load it first"
            )
        if len(weights) != len(adapters):
            raise UserError(f"expected {len(adapters)} weights, one for each adapter, got {len(weights)}; correct them")
        layers = [module for module in self.model.modules() if isinstance(module, SvfLinear)]
        every = set(self.targeted_module_names)
        self.peft_config[adapter_name] = replace(
            self.peft_config[adapters[0]], target_modules=every, layers_to_transform=None, exclude_modules=None
        )
        with torch.no_grad():
            for layer in layers:
                layer.update_layer(adapter_name)
                for name, weight in zip(adapters, weights, strict=True):
                    if name in layer.svf_delta:
                        layer.svf_delta[adapter_name] += weight * layer.svf_delta[name]
                layer.set_adapter(layer.active_adapters, inference_mode=True)


register(Kind.SVF, SvfConfig, SvfTuner)
