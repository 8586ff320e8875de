"""The gradient of a step as the sum of its units' gradients, whichever process computes each of them."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.core.processes import Group
from pipeline.training.loop import Learner

Measured = dict[str, float]


def summed(learner: Learner, group: Group, units: int, one: Callable[[int], Measured]) -> list[Measured]:
    """Add the gradients of all units to the learner's parameters, in the order of the units; what each measured.

    one: adds the gradient of a unit to the parameters. Where there are several units, how far the two halves of them
    agree is measured with the last one, as ``cosine``.
    """
    if units == 1:
        return [one(0)]
    parameters = list(learner.parameters())
    measured: dict[int, Measured] = {}

    def gradient(unit: int) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        measured[unit] = one(unit)
        return flat(parameters)

    total = torch.zeros(sum(parameter.numel() for parameter in parameters))
    first = total.clone()
    for unit, vector in enumerate(group.in_order(units, gradient, total.clone())):
        total += vector
        if unit < units // 2:
            first += vector
    start = 0
    for parameter in parameters:
        part = total[start : start + parameter.numel()].view_as(parameter)
        parameter.grad = part.to(parameter.device, parameter.dtype, copy=True)
        start += parameter.numel()
    every: list[Measured] = group.gathered(units, measured)
    every[-1] |= agreement(first, total - first)
    return every


def flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The gradients of some parameters as one vector on the CPU, float32; zeros where there is none."""
    parts = [torch.zeros_like(one) if one.grad is None else one.grad.detach() for one in parameters]
    return torch.cat([part.flatten().float().cpu() for part in parts])


def agreement(first: Tensor, second: Tensor) -> dict[str, float]:
    """The cosine of two halves of a step's gradient, as ``cosine``; nothing where one of them is zero.

    Two halves that carry the same signal and nothing else have a cosine of 1, two that carry noise alone one of 0.
    """
    cosine = float(torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0, eps=0.0))
    return {"cosine": cosine} if math.isfinite(cosine) else {}
