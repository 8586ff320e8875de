"""Linear layers in the layout that a CPU's bfloat16 kernels read.

PyTorch hands a weight to oneDNN row by row, and oneDNN reorders it at every call. For the few rows of a decode step
that costs as much as the product (measured: 10 rows 2 ×, 64 rows 1.2 ×). Here a weight is reordered once for a whole
job. There are no gradients; layers that are not bfloat16 on a CPU stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ROWS = 64  # the number of rows that the layout is chosen for; any other number works, too


class Linear:
    """y = x Wᵀ + b without gradients. weight: (out, in)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._bias = bias
        self._reordered = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
        # pinned with torch: an operator of its compiler, not of its public interface
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS) if self._reordered else weight

    def __call__(self, hidden: Tensor) -> Tensor:
        if not self._reordered:
            return nn.functional.linear(hidden, self._weight, self._bias)
        return torch.ops.mkldnn._linear_pointwise(hidden, self._weight, self._bias, "none", [], "")


@contextmanager
def reordered(model: nn.Module) -> Iterator[None]:
    """Reorder the model's linear layers inside the block, except those that something is attached to."""
    changed = []
    for module in model.modules():
        if type(module) is nn.Linear and "forward" not in vars(module) and module.weight.dtype == torch.bfloat16:
            module.forward = Linear(module.weight, module.bias)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
