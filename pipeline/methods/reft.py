"""ReFT: low-rank edits of hidden states at a few prompt tokens of a frozen model (arXiv 2404.03592, sections 3-4).

At each edited layer and token, with h (hidden), R and W (r, hidden), b (r,), the edit adds

    LoReFT   Rᵀ(Wh + b − Rh),  R Rᵀ = I        Eq. 2
    DiReFT   R ᵀ(Wh + b)                        Eq. 3   (R is the paper's W₂, not orthonormal)
    NoReFT   R ᵀ(Wh + b − Rh)                   appendix (as LoReFT, R not orthonormal)

to h. Prompts are edited and generated tokens are not, so decoding costs nothing. A slot is the set of weights that
prefix and suffix share, or one of their two sets where they do not share; each layer has 2·r·hidden + r parameters for
each slot.

**Deviations** (see also ``pipeline.methods.common.edits``)
1. ``initial: identity`` starts LoReFT and NoReFT at W = R, b = 0 and DiReFT at W = 0, b = 0, so that the edited model
   is exactly the base at step 0. ``random`` is the paper's start.

**Learning rate.** The state of a prompt's first token is two orders of magnitude larger than the others' (norm 25 000
against 200 behind layer 19 of SmolLM2-135M), and so is its share of W's gradient wherever the prefix is edited. A rate
that suits suffixes alone is then too large: at 4e-3, 4 of 21 trainings with f5+l5 ended above the base's validation
loss; at 1e-3, none of six. The paper's is 9e-4.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.core.config import Section
from pipeline.methods.common.edits import (
    Editing,
    Positions,
    choose_layers,
    copy_state,
    edited_layers,
    orthonormalised,
    random_linear,
    random_orthonormal,
    slots_for,
    stack_of,
    subspace_coordinates,
    width_of,
)
from pipeline.model.forward.adapters import Attachment, Factors

Formula = Literal["loreft", "direft", "noreft"]


class Settings(Section, at="reft.adapter"):
    """Which edits are made.

    rank: r. layers: ``all`` or indices; the output of each is edited.
    positions: the edited tokens of a prompt, ``f{n}+l{m}``. tied: prefix and suffix share their weights.
    initial: ``identity`` (exactly the base at step 0) or ``random``.
    layer_names: of a model that keeps its layers in an unknown place, ``{layer}`` for the number.
    """

    formula: Formula
    rank: int
    layers: Literal["all"] | tuple[int, ...]
    positions: str
    tied: bool
    initial: Literal["identity", "random"]
    layer_names: str | None = None


def loreft(tokens: Tensor, rotation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rᵀ(Wh + b − Rh): (E, hidden) to (E, hidden). NoReFT is the same with R free."""
    return subspace_coordinates(tokens, rotation, weight, bias) @ rotation


def direft(tokens: Tensor, rotation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rᵀ(Wh + b): (E, hidden) to (E, hidden)."""
    return torch.addmm(bias, tokens, weight.T) @ rotation


FORMULAS: dict[Formula, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "loreft": loreft,
    "direft": direft,
    "noreft": loreft,
}


class Reft(nn.Module):
    """Trainable edits. rotation, weight: (layers, slots, r, hidden); bias: (layers, slots, r); float32."""

    kind = "reft"

    def __init__(self, config: dict[str, Any], rotation: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self._config = config
        self.layers: tuple[int, ...] = tuple(config["layers"])
        self.positions = Positions.parse(config["positions"])
        self.formula = FORMULAS[config["formula"]]
        self.rotation = nn.Parameter(rotation)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        copy_state(dict(self.named_parameters()), tensors)

    def adapter(self, name: str) -> "Reft":
        """What is saved: this."""
        return self

    def retract(self) -> None:
        """After an optimizer step: restore R Rᵀ = I where the formula asks for it."""
        if self._config["formula"] == "loreft":
            with torch.no_grad():
                self.rotation.copy_(orthonormalised(self.rotation))

    def extra_loss(self) -> None:
        """The edits are trained on the answers alone."""

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors | None) -> Iterator[Attachment]:
        """Edit the prompts of ``model``'s forward passes inside the block. Its weights are never touched."""
        self.to(next(model.parameters()).device)
        place = {layer: index for index, layer in enumerate(self.layers)}

        def edit(layer: int, slot: int, tokens: Tensor, rows: Tensor) -> Tensor:
            at = place[layer], slot
            return self.formula(tokens, self.rotation[at], self.weight[at], self.bias[at])

        editing = Editing(self.positions, slots_for(self.positions, self._config["tied"]))
        with edited_layers(stack_of(model, self._config.get("layer_names")), self.layers, editing, edit):
            yield editing

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        """As ``attached``: gradients reach the edits through it."""
        return self.attached(model, None)


def initial(model: PreTrainedModel, settings: Settings, generator: torch.Generator) -> Reft:
    """Untrained edits for ``model``."""
    hidden = width_of(model)
    layers = choose_layers(settings.layers, len(stack_of(model, settings.layer_names)))
    slots = slots_for(Positions.parse(settings.positions), settings.tied)
    shape = (len(layers), slots, settings.rank, hidden)
    draw = random_orthonormal if settings.formula == "loreft" else random_linear
    rotation = draw(shape, generator)
    if settings.initial == "random":
        weight = random_linear(shape, generator)
    else:
        weight = torch.zeros(shape) if settings.formula == "direft" else rotation.clone()
    config = {
        "formula": settings.formula,
        "layers": list(layers),
        "positions": settings.positions,
        "tied": settings.tied,
        **({"layer_names": settings.layer_names} if settings.layer_names else {}),
    }
    return Reft(config, rotation, weight, torch.zeros(shape[:-1]))


def learner(model: PreTrainedModel, settings: Settings, *, factors: Factors | None, generator: torch.Generator) -> Reft:
    """What a trainer on one task needs: the edits themselves, which read no factors."""
    return initial(model, settings, generator)


def from_state(config: dict[str, Any], tensors: dict[str, Tensor]) -> Reft:
    return Reft(config, tensors["rotation"], tensors["weight"], tensors["bias"])
