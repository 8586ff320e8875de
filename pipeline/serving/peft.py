"""SVF experts inside peft: trained, saved, merged and switched by peft's own machinery.

peft's registry of methods is an enumeration (``PeftType``), which nothing outside can add to; but its LoRA takes a
layer class of one's own for a type of module (``LoraConfig._register_custom_module``, which its documentation calls
experimental). Here that layer is y = Wx + U diag(σ ⊙ (z − 1)) Vᵀx with ``lora_z`` as its one trainable vector:

    tuned = svf_model(base.model, project.factors, ["q_proj", "v_proj"], expert)   # expert: to start from, or None
    tuned.save_pretrained(folder)                                                  # z alone
    PeftModel.from_pretrained(model, folder, config=svf_config(project.factors, ["q_proj", "v_proj"]))

A folder saved so needs this module to be read again, because peft writes down a LoRA; several adapters that are
active at once add up, z' = 1 + Σ (z − 1), as peft's LoRA does.

Edits of hidden states (LoReFT, CS-ReFT) have no place there: a layer class sees the states of a matrix's input, and
neither which tokens are the prompt's nor the output of a whole decoder layer.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.methods.svf import SvfAdapter
from pipeline.model.forward.adapters import Factors


class SvfLinear(nn.Module, LoraLayer):
    """A linear module with a vector z (r,) for each of peft's adapters; 1 at the start."""

    adapter_layer_names = ("lora_z",)
    other_param_names = ()

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, *, factors: Factors, target_name: str, **kwargs: Any
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        weight = self.get_base_layer().weight
        u, sigma, vt = factors[target_name]
        self.register_buffer("svf_u", u.to(weight), persistent=False)
        self.register_buffer("svf_sigma", sigma.to(weight.device), persistent=False)
        self.register_buffer("svf_vt", vt.to(weight), persistent=False)
        self.lora_z = nn.ParameterDict()
        self._active_adapter = adapter_name
        self.update_layer(adapter_name)

    def update_layer(self, adapter_name: str, *_: Any, **settings: Any) -> None:
        self.lora_z[adapter_name] = nn.Parameter(torch.ones_like(self.svf_sigma))
        self.set_adapter(self.active_adapters, inference_mode=settings.get("inference_mode", False))

    def _scale(self, adapter_name: str) -> Tensor:
        return self.svf_sigma * (self.lora_z[adapter_name] - 1)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """W' − W = U diag(σ ⊙ (z − 1)) Vᵀ."""
        scale = self._scale(adapter_name).to(self.svf_u.dtype)
        return (self.svf_u * scale) @ self.svf_vt

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the adapters into W."""
        for name in adapter_names or self.active_adapters:
            if name in self.lora_z and name not in self.merged_adapters:
                self.get_base_layer().weight.data += self.get_delta_weight(name)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Take them out again."""
        while self.merged_adapters:
            self.get_base_layer().weight.data -= self.get_delta_weight(self.merged_adapters.pop())

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        output = self.base_layer(hidden)
        if self.disable_adapters or self.merged:
            return output
        components = nn.functional.linear(hidden, self.svf_vt)
        for name in self.active_adapters:
            if name in self.lora_z:
                scaled = components * self._scale(name).to(components.dtype)
                output = output + nn.functional.linear(scaled, self.svf_u)
        return output


def svf_config(factors: Factors, modules: Sequence[str]) -> LoraConfig:
    """The configuration under which peft puts ``SvfLinear`` in place of the named modules."""
    config = LoraConfig(r=1, target_modules=list(modules), task_type="CAUSAL_LM")  # r is LoRA's and unused
    config._register_custom_module({nn.Linear: partial(SvfLinear, factors=factors)})
    return config


def svf_model(
    model: nn.Module, factors: Factors, modules: Sequence[str], expert: SvfAdapter | None = None
) -> PeftModel:
    """The model as peft's, z of the named modules trainable. expert: where z starts; without one, at 1."""
    tuned = get_peft_model(model, svf_config(factors, modules))
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in tuned.named_modules()
        if isinstance(module, SvfLinear)
    }
    if expert is not None:
        if unknown := set(expert.experts) - set(layers):
            raise UserError(
                f"expected modules that cover the expert's, but it scales '{min(unknown)}', too; name {min(unknown)}'s "
                "last part among the modules"
            )
        with torch.no_grad():
            for name in expert.experts:
                layers[name].lora_z["default"].copy_(expert.z(name)[0])
    return tuned
