"""Linear layers in the layout that a CPU's bfloat16 kernels read.

PyTorch hands a weight to oneDNN as it lies, row by row, and oneDNN reorders it at every call. For the few rows of a
decode step that costs as much as the product (measured: 10 rows 2 ×, 64 rows 1.2 ×). Here a weight is reordered once
for a whole job. Without gradients; elsewhere than on a CPU in bfloat16 the layers stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ROWS = 64  # what the layout is chosen for; any other number computes as well


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
    """The model's own linear layers, reordered inside the block; those that something is attached to are left alone."""
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
