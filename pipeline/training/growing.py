"""A skill that is added to a trained CS-ReFT: one more subspace and one more gate. Everything else stays as it is, to
the bit.

The new subspace's R (r, hidden) is kept orthonormal. Where the old subspaces O (k·r, hidden) are orthonormal across
skills, it is kept orthogonal to all of them, R Oᵀ = 0. The router's inner layer and its old outputs stay; the new gate
is a new output. So old gates open where they did, and a prompt whose new gate is closed is answered as before.

Answers to the old skills' prompts can be trained on beside those to the new skill's: the new gate has to learn where to
stay closed. What is old is frozen all the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.methods.common.edits import orthonormalised, random_linear
from pipeline.model.forward.adapters import Attachment

SUBSPACES = ("rotation", "weight", "bias")  # the skills are stacked along their third dimension
OUTPUTS = ("router_out_weight", "router_out_bias")  # one row for each skill


class Composed(Protocol):
    """What growing needs of a trained CS-ReFT."""

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]: ...

    def config(self) -> dict[str, Any]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, tensors: dict[str, Tensor]) -> None: ...

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]: ...

    def extra_loss(self) -> Tensor | None: ...

    def rates(self) -> Mapping[nn.Parameter, float]: ...


def new_skill(known: Sequence[str], present: Sequence[str]) -> str:
    """The one skill of those present that is not known yet; a UserError where there is none or several."""
    added = [skill for skill in present if skill not in known]
    if len(added) != 1:
        raise UserError(
            f"expected examples of one skill beside {', '.join(known)}, which the adapter has, got "
            f"{', '.join(added) or 'none'}; name one new task, or start from another adapter"
        )
    return added[0]


def enlarged(
    config: dict[str, Any], tensors: dict[str, Tensor], skill: str, open_bias: float, generator: torch.Generator
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of a CS-ReFT with one more subspace (W = R, b = 0) and one more gate.

    open_bias: the new gate's bias, which decides how far it is open at the start.
    UserError where the skill is there already, the adapter has no router, or the old subspaces leave no room.
    """
    skills = config["skills"]
    if skill in skills or config["router"]["input"] == "none":
        raise UserError(
            f"expected a skill other than {', '.join(skills)}, of an adapter with a router, got '{skill}' and router "
            f"input '{config['router']['input']}'; name another task or start from another adapter"
        )
    old = tensors["rotation"]
    rank = old.shape[2] // len(skills)
    if config["orthonormal"] == "across" and old.shape[2] + rank > old.shape[3]:
        raise UserError(
            f"expected room for {rank} more directions, got {old.shape[2]} taken of {old.shape[3]}; lower the rank"
        )
    drawn = torch.randn(*old.shape[:2], rank, old.shape[3], generator=generator)
    rotation = apart(drawn, old if config["orthonormal"] == "across" else old[:, :, :0])
    new = {"rotation": rotation, "weight": rotation.clone(), "bias": torch.zeros(rotation.shape[:-1])}
    inner = tensors["router_in_weight"].shape[0]
    new |= {"router_out_weight": random_linear((1, inner), generator), "router_out_bias": torch.tensor([open_bias])}
    grown = {name: tensor.clone() for name, tensor in tensors.items()}
    grown |= {name: torch.cat([tensors[name], new[name]], dim=2) for name in SUBSPACES}
    grown |= {name: torch.cat([tensors[name], new[name]], dim=0) for name in OUTPUTS}
    return {**config, "skills": [*skills, skill]}, grown


def apart(rotation: Tensor, old: Tensor) -> Tensor:
    """Orthonormal rows near those of ``rotation`` (..., r, hidden), orthogonal to those of ``old`` (..., m, hidden)."""
    exact, others = rotation.double(), old.double()
    return orthonormalised(exact - exact @ others.mT @ others).to(rotation.dtype)


class Grown:
    """A learner of the last skill of an enlarged CS-ReFT. What belongs to the other skills is frozen."""

    def __init__(self, adapter: Composed) -> None:
        self.adapter = adapter
        config = adapter.config()
        self._across = config["orthonormal"] == "across"
        self._old = {name: tensor.clone() for name, tensor in adapter.state().items()}
        self._free: dict[str, tuple[slice, ...]] = {}
        skills = len(config["skills"])
        for name, parameter in adapter.named_parameters():
            if name in SUBSPACES:
                start = parameter.shape[2] // skills * (skills - 1)
                self._free[name] = (slice(None), slice(None), slice(start, None))
            elif name in OUTPUTS:
                self._free[name] = (slice(skills - 1, None),)
            # The gradient of what is frozen would count in the norm by which gradients are clipped.
            parameter.register_hook(lambda gradient, name=name: self._masked(name, gradient))

    def _masked(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient, zero where the parameter is frozen."""
        kept = torch.zeros_like(gradient)
        if name in self._free:
            kept[self._free[name]] = gradient[self._free[name]]
        return kept

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.adapter.parameters()

    def state(self) -> dict[str, Tensor]:
        return self.adapter.state()

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.adapter.load_state(tensors)

    def learning(self, model: nn.Module) -> AbstractContextManager[Attachment]:
        return self.adapter.learning(model)

    def extra_loss(self) -> Tensor | None:
        return self.adapter.extra_loss()

    def rates(self) -> Mapping[nn.Parameter, float]:
        return self.adapter.rates()

    def retract(self) -> None:
        """Put back what is old, which weight decay has moved; make the new R orthonormal and apart from the old."""
        with torch.no_grad():
            for name, parameter in self.adapter.named_parameters():
                before = self._old[name].to(parameter.device)
                if name in self._free:
                    before = before.clone()
                    before[self._free[name]] = parameter[self._free[name]]
                parameter.copy_(before)
                if name == "rotation":
                    place = self._free[name]
                    old = parameter[:, :, : place[2].start if self._across else 0]
                    parameter[place] = apart(parameter[place], old)
