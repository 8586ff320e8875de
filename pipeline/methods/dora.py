"""DoRA: LoRA's sum with a trained length for every row (arXiv 2402.09353, Eq. 5); a baseline, trained through peft.

    W' = diag(m) V / ‖V‖,  V = W + (α/r) B A

Shapes: W, V (out, in), m and the norms of V's rows (out,). m starts at the norms of W's rows and B at 0, so the adapted
model is the base at step 0. The norm is a constant to the gradient, as in the paper's Section 4.3. How it is trained,
saved and written into W: ``pipeline.methods.common.peft``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.methods.common.peft import (
    PREFIX,
    LowRank,
    LowRankSettings,
    linear_of,
    low_rank_config,
    low_rank_start,
    moved,
)
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.base import linear_modules

MAGNITUDE = "lora_magnitude_vector"


class Settings(LowRankSettings, at="dora.adapter"):
    """Rank, scale, dropout and modules of the sums."""


class Dora(LowRank):
    """Trainable pairs A, B and lengths m."""

    kind = "dora"

    def install(self, module: str, layer: Any) -> None:
        super().install(module, layer)
        layer.lora_magnitude_vector["default"].weight = moved(self.part(module, MAGNITUDE), layer.base_layer.weight)

    def write(self, module: str, linear: nn.Linear) -> None:
        direction = self.sum_of(module, linear.weight)
        length = self.part(module, MAGNITUDE).to(linear.weight.device)
        # The quotient first: at the start it is 1, and W stays as it is to the bit.
        linear.weight.copy_((length / direction.norm(dim=1))[:, None] * direction)


def initial(model: PreTrainedModel, settings: Settings, generator: torch.Generator) -> Dora:
    """An untrained adapter for ``model``."""
    tensors = low_rank_start(model, settings, generator)
    for module in linear_modules(model, settings.modules):
        tensors[f"{PREFIX}{module}.{MAGNITUDE}"] = linear_of(model, module).weight.detach().float().norm(dim=1)
    return Dora({**low_rank_config(settings), "use_dora": True}, tensors)


def learner(model: PreTrainedModel, settings: Settings, *, factors: Factors | None, generator: torch.Generator) -> Dora:
    """What a trainer needs: the adapter itself, which reads no factors."""
    return initial(model, settings, generator)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Dora:
    return Dora(config, tensors)
