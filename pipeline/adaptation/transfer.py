"""Move an SVF expert to another base model (Transformer², arXiv 2501.06252, Section 4.3, Tables 5 and 9).

The paper applies z of one model to another of the same shapes, component i to component i. An expert is moved module
by module: to the module of the same name, at the same depth, at the same rank.

    from z (r,) of layer l of L   to   z' (r',) of layer l' of L'

Models of other shapes, which the paper leaves open, are met by *relative* depth and rank: layer l' takes the layer
whose middle is at the same share of the depth, ⌊(l' + ½) L / L'⌋; component j takes z at index j r / r', between two
components by linear interpolation. With equal shapes both are the identity, to the bit.

``shuffled`` is the paper's control: the same values in an order drawn at random, module by module, so that what is
left of an improvement did not hang on which component a value belongs to.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import natural_order
from pipeline.model.forward.base import layer_of

ORDERS = ("ordered", "shuffled")


def resampled(z: Tensor, rank: int) -> Tensor:
    """z (r,) at ``rank`` places of the same relative rank, index / r: (rank,). The identity where rank is r."""
    places = torch.arange(rank, dtype=torch.float64) * len(z) / rank
    below = places.long()
    above = (below + 1).clamp(max=len(z) - 1)
    return torch.lerp(z[below], z[above], (places - below).to(z.dtype))


def same_depth(layer: int, layers: int, of: int) -> int:
    """The layer out of ``of`` that stands where ``layer`` stands among ``layers``."""
    return (2 * layer + 1) * of // (2 * layers)


def kind_of(module: str) -> str:
    """A module's place within its layer: ``self_attn.q_proj`` of ``model.layers.7.self_attn.q_proj``."""
    return module.partition(f"layers.{layer_of(module)}.")[2]


def moved(z: Mapping[str, Tensor], ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """An expert, module → (r,), as one for a model whose decomposed modules have these ranks, module → r'.

    Modules that the expert does not scale are left out. Raises UserError if it scales one that the model has not got.
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
        for name, rank in sorted(ranks.items(), key=lambda one: natural_order(one[0]))
        if kind_of(name) in kinds
    }


def shuffled(z: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """The same values of every module in an order drawn at random."""
    return {name: vector[torch.randperm(len(vector), generator=generator)] for name, vector in z.items()}
