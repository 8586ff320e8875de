"""Move an SVF expert to another base model (Transformer², arXiv 2501.06252, Section 4.3, Tables 5 and 9).

The paper applies the z of one model to another of the same shapes, component i to component i. An expert is moved
module by module, to the module of the same name, at the same depth and rank:

    z (r,) of layer l of L  →  z' (r',) of layer l' of L'

Between models of other shapes, which the paper leaves open, depth and rank are *relative*. Layer l' takes the layer
whose middle is at the same share of the depth, ⌊(l' + ½) L / L'⌋. Component j takes z at index j r / r', by linear
interpolation between two components. With equal shapes both are the identity, to the bit.

``shuffled`` is the paper's control: each module's values in an order drawn at random. What is left of an improvement
then does not depend on which component a value belongs to.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import natural_order
from pipeline.model.forward.base import layer_of

ORDERS = ("ordered", "shuffled")


def resampled(z: Tensor, rank: int) -> Tensor:
    """z (r,) resampled to (rank,), at indices of the same share of r. The identity where rank is r."""
    places = torch.arange(rank, dtype=torch.float64) * len(z) / rank
    below = places.long()
    above = (below + 1).clamp(max=len(z) - 1)
    return torch.lerp(z[below], z[above], (places - below).to(z.dtype))


def same_depth(layer: int, layers: int, of: int) -> int:
    """The layer out of ``of`` layers that is as deep, relatively, as ``layer`` is out of ``layers``."""
    return (2 * layer + 1) * of // (2 * layers)


def kind_of(module: str) -> str:
    """A module's place within its layer: ``self_attn.q_proj`` of ``model.layers.7.self_attn.q_proj``."""
    return module.partition(f"layers.{layer_of(module)}.")[2]


def moved(z: Mapping[str, Tensor], ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """An expert as one for another model.

    z: module → (r,). ranks: decomposed module of the other model → r'. Modules that the expert does not scale are left
    out. Raises UserError if it scales one that the other model has not got.
    """
    own = {(kind_of(name), layer_of(name)): vector for name, vector in z.items()}
    depth, layers = (1 + max(layer_of(name) for name in names) for names in (z, ranks))
    kinds = {kind for kind, _ in own}
    if missing := kinds - {kind_of(name) for name in ranks}:
        raise UserError(
            f"expected a base model with the modules that the expert scales, got one without {', '.join(missing)}; "
            "move it to a model of this family, or train it on the modules both have (svf.modules)"
        )
    return {
        name: resampled(own[kind_of(name), same_depth(layer_of(name), layers, depth)], rank)
        for name, rank in sorted(ranks.items(), key=lambda item: natural_order(item[0]))
        if kind_of(name) in kinds
    }


def shuffled(z: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The values of every module in an order drawn at random."""
    return {name: vector[torch.randperm(len(vector), generator=generator)] for name, vector in z.items()}
