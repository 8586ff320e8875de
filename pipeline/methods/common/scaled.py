"""A frozen model whose singular values are scaled: what SVF (``pipeline.methods.svf``) computes with.

With W = U diag(σ) Vᵀ and one factor z for each singular value, W' = U diag(σ ⊙ z) Vᵀ. The same W' is computed in two
exact ways:

- *materialised*: W' = W + U diag(σ ⊙ (z − 1)) Vᵀ is written once, and decoding costs what the base model's does. At
  z = 1 it is W to the bit.
- *factored*: y = U((σ ⊙ z) ⊙ (Vᵀ x)) for each token. Every row of a batch can have its own z, and the gradient of z is
  a sum of elementwise products: no dense ∂L/∂W' exists.

Shapes: W (out, in), U (out, r), σ and z (r,), Vᵀ (r, in), with r = min(out, in).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import LongTensor, Tensor, nn

from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import Attachment, Factors
from pipeline.model.forward.linear import Linear

# ---- materialised ----------------------------------------------------------------------------------------------------


def materialised(weight: Tensor, factors: tuple[Tensor, Tensor, Tensor], z: Tensor) -> Tensor:
    """W' = W + U diag(σ ⊙ (z − 1)) Vᵀ in W's dtype, summed in float32; exactly W at z = 1.

    The product is taken in W's dtype: the change is small against W, so its rounding is small against that of W'.
    """
    u, sigma, vt = (factor.to(weight.device) for factor in factors)
    if bool((z == 1).all()):
        return weight.clone()
    scaled = u * (sigma * (z.to(weight.device) - 1))
    return torch.addmm(weight, scaled.to(weight.dtype), vt.to(weight.dtype))


@contextmanager
def materialised_weights(model: nn.Module, factors: Factors, z: Mapping[str, Tensor]) -> Iterator[Attachment]:
    """The model with W' written in place of every W. z: module name → (r,)."""
    with ExitStack() as stack:
        for name, vector in z.items():
            module = model.get_submodule(name)
            stack.enter_context(_replaced_weight(module, materialised(module.weight, factors[name], vector)))
        yield Attachment()


@contextmanager
def _replaced_weight(module: nn.Linear, weight: Tensor) -> Iterator[None]:
    original = module.weight
    module.weight = nn.Parameter(weight, requires_grad=False)
    try:
        yield
    finally:
        module.weight = original


# ---- factored, one z for all rows: what is trained -------------------------------------------------------------------


class _Factored(torch.autograd.Function):
    """U(s ⊙ (Vᵀ x)) + bias as one node of the graph; s = σ ⊙ z.

    The gradient of s is the sum over tokens of (Vᵀ x) ⊙ (Uᵀ ∂L/∂y), in float32. The gradient of x needs Uᵀ ∂L/∂y
    anyway, so no product is computed for s alone.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, scale: Tensor, u: Tensor, vt: Tensor, bias: Tensor | None) -> Tensor:
        components = nn.functional.linear(hidden, vt)
        cast = scale.to(components.dtype)
        ctx.save_for_backward(components, cast, u, vt)
        return nn.functional.linear(components * cast, u, bias)

    @staticmethod
    def backward(ctx, outer: Tensor):
        components, cast, u, vt = ctx.saved_tensors
        inner = outer @ u
        scale_gradient = (inner * components).flatten(0, -2).sum(0, dtype=torch.float32)
        hidden_gradient = inner.mul_(cast) @ vt if ctx.needs_input_grad[0] else None
        return hidden_gradient, scale_gradient, None, None, None


class FactoredLinear:
    """y = U(s ⊙ (Vᵀ x)) + bias in place of a linear module's forward.

    scale: s = σ ⊙ z, (r,); gradients reach it, and it may be replaced between two passes.
    """

    def __init__(self, module: nn.Linear, factors: tuple[Tensor, Tensor, Tensor], scale: Tensor) -> None:
        u, _, vt = factors
        self.u, self.vt = u.to(module.weight), vt.to(module.weight)
        self.bias, self.scale = module.bias, scale

    def __call__(self, hidden: Tensor) -> Tensor:
        return _Factored.apply(hidden, self.scale, self.u, self.vt, self.bias)


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """``forward`` in place of the module's own inside the block."""
    module.forward = forward  # an attribute of the instance hides the class's method
    try:
        yield
    finally:
        del module.forward


# ---- factored, one z for each row: how mixtures are compared and served ----------------------------------------------


@contextmanager
def row_scaled(
    model: nn.Module, factors: Factors, z: Mapping[str, Tensor], ids: Sequence[str] = ()
) -> Iterator[Attachment]:
    """The model with one z for each row of the job.

    z: module name → (rows, r). ids: the prompts that the rows are for, in order (default: rows go by number).
    """
    groups = _equal_rows(list(z.values()))
    rows = _PromptRows(groups, ids) if ids else _Rows(groups)
    with ExitStack() as stack:
        for name, vectors in z.items():
            module = model.get_submodule(name)
            scales = vectors.to(module.weight.device) * factors[name][1].to(module.weight.device)
            stack.enter_context(replaced_forward(module, _RowLinear(module, factors[name], scales, rows)))
        yield rows


class _Rows(Attachment):
    """Which row of the job each row of the batch is. groups: of each row; rows of one group have the same z."""

    current: LongTensor

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = groups

    def alike(self, rows: LongTensor) -> list[int]:
        return [self._groups[row] for row in rows.tolist()]

    def begin(self, rows: LongTensor, prompt_mask: Tensor | None) -> None:
        self.current = rows


class _PromptRows(_Rows):
    """Rows looked up by the ids of the prompts that they were made for."""

    def __init__(self, groups: Sequence[int], ids: Sequence[str]) -> None:
        super().__init__(groups)
        self._places = {id_: place for place, id_ in enumerate(ids)}

    def rows(self, ids: Sequence[str]) -> list[int]:
        missing = [id_ for id_ in ids if id_ not in self._places]
        if missing:
            raise UserError(
                f"expected a mixture for every prompt, got none for {len(missing)} of {len(ids)}, e.g. '{missing[0]}'; "
                "run the stage that adapts to this task again"
            )
        return [self._places[id_] for id_ in ids]


class _RowLinear:
    """y = U(s_row ⊙ (Vᵀ x)) + bias in place of a linear module's forward. scales: (rows of the job, r)."""

    def __init__(self, module: nn.Linear, factors: tuple[Tensor, Tensor, Tensor], scales: Tensor, rows: _Rows):
        u, _, vt = factors
        self.out, self.into = Linear(u.to(module.weight), module.bias), Linear(vt.to(module.weight))
        self.scales, self.rows = scales.to(module.weight), rows

    def __call__(self, hidden: Tensor) -> Tensor:
        components = self.into(hidden)
        components.mul_(self.scales.index_select(0, self.rows.current.to(self.scales.device))[:, None])
        return self.out(components)


def _equal_rows(tensors: Sequence[Tensor]) -> list[int]:
    """A number for each row of the job, the same for rows that have the same z in every matrix."""
    numbers: dict[bytes, int] = {}
    groups = []
    for row in range(len(tensors[0])):
        whole = torch.cat([vectors[row] for vectors in tensors]).cpu().numpy().tobytes()
        groups.append(numbers.setdefault(hashlib.blake2b(whole).digest(), len(numbers)))
    return groups
