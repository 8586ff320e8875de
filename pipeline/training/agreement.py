"""How far two gradients agree."""

import math

import torch
from torch import Tensor


def agreement(first: Tensor, second: Tensor) -> dict[str, float]:
    """The cosine of two halves of a step's gradient, as ``cosine``; nothing where one of them is zero.

    Two halves that carry the same signal and nothing else have a cosine of 1, two that carry noise alone one of 0.
    """
    cosine = float(torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=0, eps=0.0))
    return {"cosine": cosine} if math.isfinite(cosine) else {}
