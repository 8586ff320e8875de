"""TinyLoRA (arXiv 2602.04118): a few numbers inside a matrix's leading singular directions; SVF's nearest rival.

    W' = W + B R A,   A = √Σ_r V_rᵀ,  B = U_r √Σ_r,  R = Σ_i v_i P_i

Shapes: A (r, in) and B (out, r) hold W's r largest singular values and their directions, P (u, r, r) is drawn once, and
only v (u,) is trained. ``tying`` lets neighbouring matrices share a v, down to one v for the whole model. v starts at
0, so the adapted model is the base at step 0. SVF scales every singular value and mixes no directions; TinyLoRA mixes
the first r directions.

It is trained through peft, which makes A, B and P. The file holds them beside v, as peft's own file does, so that using
it needs neither peft nor another decomposition. How it is written into W: ``pipeline.methods.common.peft``.

Why this one of peft's small tuners: VeRA and its kin project on random directions, and PiSSA trains a LoRA that starts
from the singular ones. TinyLoRA alone trains next to nothing within a frozen decomposition of W, as SVF does.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.core.config import Section
from pipeline.methods.common.peft import PREFIX, Tuner, inserted, moved
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.base import linear_modules

VECTOR = "base_model.tinylora_v."
FROZEN = ("tinylora_A", "tinylora_B", "tinylora_P")


class Settings(Section, at="tinylora.adapter"):
    """Which numbers are trained, and where.

    rank: r, directions. size: u, numbers in a v. tying: share of the matrices that do without a v of their own.
    modules: last parts of the names of the adapted matrices.
    """

    rank: int = Field(ge=1)
    size: int = Field(ge=1)
    tying: float = Field(ge=0, le=1)
    modules: tuple[str, ...] = Field(min_length=1)


class TinyLora(Tuner):
    """Trainable vectors v. The config's ``groups`` maps each module to the number of the v that it uses."""

    kind = "tinylora"

    def __init__(self, config: Mapping[str, Any], trained: Mapping[str, Tensor], frozen: Mapping[str, Tensor]) -> None:
        super().__init__(config, trained, frozen)
        self.modules = tuple(config["groups"])

    def vector(self, module: str) -> nn.Parameter:
        return self.trained[f"{VECTOR}{self._config['groups'][module]}"]

    def settings(self) -> Any:
        return _peft(self._config, self.modules)

    def install(self, module: str, layer: Any) -> None:
        weight = layer.base_layer.weight
        for name in FROZEN:
            getattr(layer, name)["default"] = self.frozen[f"{PREFIX}{module}.{name}"].to(weight.device)
        layer.tinylora_v["default"][str(self._config["groups"][module])] = moved(self.vector(module), weight)

    def write(self, module: str, linear: nn.Linear) -> None:
        a, b, p = (self.frozen[f"{PREFIX}{module}.{name}"].to(linear.weight.device) for name in FROZEN)
        mixed = torch.einsum("u,ujk->jk", self.vector(module).to(p.device), p)
        linear.weight.copy_(linear.weight.float() + b @ mixed @ a)


def _peft(config: Mapping[str, Any], modules: tuple[str, ...]) -> Any:
    from peft import TinyLoraConfig

    chosen = {key: config[key] for key in ("r", "u", "weight_tying", "projection_seed")}
    return TinyLoraConfig(target_modules=list(modules), **chosen)


def groups(modules: int, tying: float) -> list[int]:
    """The number of the v that each of ``modules`` modules uses: neighbours share a v, as in peft."""
    wanted = max(1, round(modules * (1 - tying)))
    size = max(1, modules // wanted)
    return [min(place // size, wanted - 1) for place in range(modules)]


def initial(model: PreTrainedModel, settings: Settings, generator: torch.Generator) -> TinyLora:
    """An untrained adapter for ``model``. generator: its initial seed draws P."""
    modules = tuple(linear_modules(model, settings.modules))
    shared = groups(len(modules), settings.tying)
    config = {
        "peft_type": "TINYLORA",
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "u": settings.size,
        "weight_tying": settings.tying,
        "projection_seed": generator.initial_seed(),
        "target_modules": list(settings.modules),
        "groups": dict(zip(modules, shared, strict=True)),
    }
    layers = inserted(model, _peft(config, modules), modules)
    frozen = {
        f"{PREFIX}{module}.{name}": getattr(layer, name)["default"].detach().float().clone()
        for module, layer in layers.items()
        for name in FROZEN
    }
    adapter = TinyLora(
        config, {f"{VECTOR}{group}": torch.zeros(settings.size) for group in sorted(set(shared))}, frozen
    )
    adapter._layers = layers  # peft has decomposed the matrices for them: once is enough
    return adapter


def learner(
    model: PreTrainedModel, settings: Settings, *, factors: Factors | None, generator: torch.Generator
) -> TinyLora:
    """What a trainer needs: the adapter itself, which reads no factors."""
    return initial(model, settings, generator)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TinyLora:
    trained = {name: tensor for name, tensor in tensors.items() if name.startswith(VECTOR)}
    return TinyLora(config, trained, {name: tensor for name, tensor in tensors.items() if name not in trained})
