"""How much of a matrix, and of what an expert changes in it, lies in its first singular components.

Transformer² (arXiv 2501.06252, Figures 10 and 11) shows, for every kind of matrix and layer, the share of the sum of
singular values that the top r components hold,

    share_r = Σ_{i ≤ r} σ_i / Σ_i σ_i,

and argues from it that adapting the top components alone would lose much. Beside it stands what an expert did:
Σ_{i ≤ r} |z_i − 1| / Σ_i |z_i − 1|. Had it changed all components alike, that would be r over the rank.
"""

import torch
from torch import Tensor

FRACTIONS = tuple(step / 20 for step in range(1, 21))  # of the rank: what is read off, 5 % to 100 %


def shares(weights: Tensor, fractions: tuple[float, ...] = FRACTIONS) -> list[float]:
    """Of non-negative weights (r,): the share of their sum that the first r · fraction hold, for every fraction.

    Where all weights are zero, nothing is held anywhere: zeros.
    """
    total = weights.double().cumsum(0)
    tops = [max(1, round(fraction * len(weights))) for fraction in fractions]
    return [float(total[top - 1] / total[-1]) if total[-1] > 0 else 0.0 for top in tops]


def top_shares(sigma: Tensor, changes: dict[str, Tensor]) -> dict[str, list[float]]:
    """The shares of σ (r,), as ``sigma``, and of |z − 1| of every expert's z (r,), by its name."""
    held = {"sigma": shares(sigma)}
    return held | {name: shares((z.to(torch.float64) - 1).abs()) for name, z in changes.items()}
