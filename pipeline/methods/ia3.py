"""(IA)³: a trained factor for each component of a matrix's output or input (arXiv 2205.05638); through peft.

    W' = diag(l) W   (keys and values: scaled output)
    W' = W diag(l)   (the second matrix of a feed-forward block: scaled input)

Shapes: W (out, in), l (out, 1) or (1, in), as in peft. l starts at 1, so the adapted model is the base at step 0. A
bias belongs to the output and is scaled with it. How it is trained, saved and written into W:
``pipeline.methods.common.peft``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.methods.common.peft import PREFIX, Tuner, linear_of, moved
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.base import linear_modules

SUFFIX = ".ia3_l"


class Settings(Section, at="ia3.adapter"):
    """Which matrices are scaled.

    modules: last parts of their names. feedforward: those of the modules whose input is scaled, not their output.
    """

    modules: tuple[str, ...] = Field(min_length=1)
    feedforward: tuple[str, ...]


class Ia3(Tuner):
    """One trainable vector l of each module."""

    kind = "ia3"

    def __init__(self, config: Mapping[str, Any], trained: Mapping[str, Tensor]) -> None:
        super().__init__(config, trained)
        self.modules = tuple(name.removeprefix(PREFIX).removesuffix(SUFFIX) for name in trained)

    def factor(self, module: str) -> nn.Parameter:
        return self.trained[f"{PREFIX}{module}{SUFFIX}"]

    def _feeds_forward(self, module: str) -> bool:
        return module.rpartition(".")[2] in self._config["feedforward_modules"]

    def settings(self) -> Any:
        from peft import IA3Config

        scaled_input = [module for module in self.modules if self._feeds_forward(module)]
        return IA3Config(target_modules=list(self.modules), feedforward_modules=scaled_input)

    def install(self, module: str, layer: Any) -> None:
        layer.ia3_l["default"] = moved(self.factor(module), layer.base_layer.weight)

    def write(self, module: str, linear: nn.Linear) -> None:
        factor = self.factor(module).to(linear.weight.device)
        linear.weight.copy_(linear.weight.float() * factor)
        if linear.bias is not None and not self._feeds_forward(module):
            linear.bias.copy_(linear.bias.float() * factor[:, 0])


def initial(model: PreTrainedModel, settings: Settings, generator: torch.Generator) -> Ia3:
    """An untrained adapter for ``model``: nothing is drawn."""
    if unknown := set(settings.feedforward) - set(settings.modules):
        raise UserError(
            f"params.yaml: expected the modules in 'feedforward' to stand in 'modules', too, but '{min(unknown)}' does "
            "not; add it there"
        )
    tensors = {}
    for module in linear_modules(model, settings.modules):
        out_features, in_features = linear_of(model, module).weight.shape
        takes = module.rpartition(".")[2] in settings.feedforward
        tensors[f"{PREFIX}{module}{SUFFIX}"] = torch.ones((1, in_features) if takes else (out_features, 1))
    config = {
        "peft_type": "IA3",
        "task_type": "CAUSAL_LM",
        "target_modules": list(settings.modules),
        "feedforward_modules": list(settings.feedforward),
    }
    return Ia3(config, tensors)


def learner(model: PreTrainedModel, settings: Settings, *, factors: Factors | None, generator: torch.Generator) -> Ia3:
    """What a trainer needs: the adapter itself, which reads no factors."""
    return initial(model, settings, generator)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ia3:
    return Ia3(config, tensors)
