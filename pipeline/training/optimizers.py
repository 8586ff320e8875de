"""The optimizers that a training may name.

    adamw         AdamW (arXiv 1711.05101), a second moment for each coordinate
    adam_shared   Adam with one second moment for each tensor, or for each part of it that the learner names
    sgd           gradient descent with momentum, no second moment

AdamW divides each coordinate by its own root mean square. Where a step's gradient is mostly noise, as a policy
gradient's is, every coordinate then moves by about the learning rate, and those that carry the signal move no further
than those that carry none. One second moment for many coordinates keeps their proportions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn


class Choice(Protocol):
    """The settings that an optimizer is made of; see ``pipeline.training.loop.Optimisation``."""

    @property
    def optimizer(self) -> Literal["adamw", "adam_shared", "sgd"]: ...
    @property
    def momentum(self) -> float: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def optimizer_of(
    groups: Sequence[Mapping[str, Any]], settings: Choice, parts: Mapping[nn.Parameter, Sequence[int]]
) -> torch.optim.Optimizer:
    """groups: of parameters, as torch takes them. parts: see ``SharedAdam``."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, weight_decay=decay, momentum=settings.momentum)
    if settings.optimizer == "adam_shared":
        return SharedAdam(groups, lr=rate, weight_decay=decay, momentum=settings.momentum, parts=parts)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=decay, betas=(settings.momentum, 0.999))


class SharedAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay and one second moment for each part of a tensor.

    lr: learning rate. momentum: β₁. parts: the sizes of a flat parameter's parts (default: the tensor is one part).
    """

    BETA2, EPSILON = 0.999, 1e-8  # AdamW's defaults

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        parts: Mapping[nn.Parameter, Sequence[int]],
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._parts = parts

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        sizes = list(self._parts.get(parameter, [parameter.numel()]))
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros(len(sizes))
        state["step"] += 1
        beta1, steps = group["momentum"], float(state["step"])
        squares = torch.stack([part.square().mean() for part in gradient.flatten().split(sizes)]).cpu()
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].lerp_(squares, 1 - self.BETA2)
        scale = (state["square"] / (1 - self.BETA2**steps)).sqrt_().add_(self.EPSILON).mul_(1 - beta1**steps)
        each = scale.repeat_interleave(torch.tensor(sizes)).view_as(parameter).to(parameter.device)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(state["mean"], each, value=-group["lr"])
