"""LoRA: a low-rank sum to chosen matrices, W + (α/r) B A (arXiv 2106.09685); the baseline, trained through peft.

Shapes: W (out, in), A (r, in), B (out, r); B starts at 0, so the adapted model is the base at step 0. How it is
trained, saved and written into W: ``pipeline.methods.common.peft``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.methods.common.peft import LowRank, LowRankSettings, low_rank_config, low_rank_start
from pipeline.model.forward.adapters import Factors


class Settings(LowRankSettings, at="lora.adapter"):
    """Rank, scale, dropout and modules of the sums."""


class Lora(LowRank):
    """Trainable pairs A, B."""

    kind = "lora"

    def write(self, module: str, linear: nn.Linear) -> None:
        linear.weight.copy_(self.sum_of(module, linear.weight))


def initial(model: PreTrainedModel, settings: Settings, generator: torch.Generator) -> Lora:
    """An untrained adapter for ``model``."""
    return Lora(low_rank_config(settings), low_rank_start(model, settings, generator))


def learner(model: PreTrainedModel, settings: Settings, *, factors: Factors | None, generator: torch.Generator) -> Lora:
    """What a trainer needs: the adapter itself, which reads no factors."""
    return initial(model, settings, generator)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Lora:
    return Lora(config, tensors)
