"""How much of a matrix, and of an expert's change to it, lies in the first singular components.

Transformer² (arXiv 2501.06252, Figures 10 and 11) shows, for every kind of matrix and layer, the share of the sum of
singular values that the top r components hold,

    share_r = Σ_{i ≤ r} σ_i / Σ_i σ_i,

and argues from it that adapting the top components alone would lose much. Beside it stands the same share of an
expert's change, Σ_{i ≤ r} |z_i − 1| / Σ_i |z_i − 1|, which is r over the rank where all components changed alike.
"""

import torch
from torch import Tensor

FRACTIONS = tuple(step / 20 for step in range(1, 21))  # top parts of the rank at which shares are read: 5 % to 100 %


def shares(weights: Tensor, fractions: tuple[float, ...] = FRACTIONS) -> list[float]:
    """For every fraction, the share of the sum of non-negative weights (r,) that the first r · fraction of them hold.

    Zeros where all weights are zero.
    """
    total = weights.double().cumsum(0)
    tops = [max(1, round(fraction * len(weights))) for fraction in fractions]
    return [float(total[top - 1] / total[-1]) if total[-1] > 0 else 0.0 for top in tops]


def top_shares(sigma: Tensor, changes: dict[str, Tensor]) -> dict[str, list[float]]:
    """The shares of σ (r,), under ``sigma``, and of every expert's |z − 1| (r,), under its name.

    changes: an expert's name to its z.
    """
    held = {"sigma": shares(sigma)}
    return held | {name: shares((z.to(torch.float64) - 1).abs()) for name, z in changes.items()}
