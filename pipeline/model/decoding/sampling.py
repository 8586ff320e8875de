"""From logits to the next token.

Sampling inverts the distribution function, first over blocks of the vocabulary, then within one: one pass of exp over
the logits instead of a sorted or renormalised copy. It gives the log-probability of the token as well.
"""

import math
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor, nn

BLOCK = 256  # vocabulary entries per block


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn.

    generator: of the random numbers.
    samples: answers to each prompt.
    temperature: what logits are divided by; above 0, and finite.
    """

    generator: torch.Generator
    samples: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf or self.samples < 1:
            raise ValueError(f"expected a finite temperature above 0 and one sample or more, got {self}")


def sample(logits: Tensor, uniform: Tensor, temperature: float | Tensor) -> tuple[LongTensor, Tensor]:
    """Draw one token per row by inverting the distribution function at ``uniform``.

    logits: (rows, vocab). uniform: (rows,) in [0, 1). temperature: above 0, one for all rows or (rows,) float64.
    Returns ids and their log-probabilities (nats) at this temperature.
    """
    scaled, top = _scaled(logits.float(), temperature)
    rows, vocab = scaled.shape
    weights = (scaled - top).exp_()
    if vocab % BLOCK:
        weights = nn.functional.pad(weights, (0, BLOCK - vocab % BLOCK))
    blocks = weights.view(rows, -1, BLOCK)
    # float64: the sum of 49 152 float32 terms is off by more than the probability of a rare token
    cumulated = blocks.sum(-1).double().cumsum(-1)
    total = cumulated[:, -1:]
    point = uniform[:, None].double() * total
    block = torch.searchsorted(cumulated, point, right=True).clamp_(max=cumulated.shape[1] - 1)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1)
    rest = point - torch.where(block > 0, cumulated.gather(1, (block - 1).clamp_(min=0)), 0.0)
    place = torch.searchsorted(inside.double().cumsum(-1), rest, right=True)
    # Rounding may leave the point behind the block's last token: step back to its last token of any weight.
    last = BLOCK - 1 - (inside.flip(1) > 0).int().argmax(1, keepdim=True)
    ids = block * BLOCK + torch.minimum(place, last)
    chosen = scaled.gather(1, ids) - top - total.log().float()
    return ids.squeeze(1), chosen.squeeze(1)


def _scaled(logits: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """The logits divided by the temperature, up to a constant of each row, and the largest of each row, (rows, 1).

    Near temperature 0 the quotients leave the range of float32. In such rows the distance from the largest logit is
    divided instead. It is 0 for the most likely token whatever the temperature, and −∞ where it leaves the range.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature[:, None]
        scaled = logits / temperature.float()
    else:
        scaled = logits if temperature == 1.0 else logits / temperature
    top = scaled.amax(1, keepdim=True)
    beyond = ~top.isfinite()
    if bool(beyond.any()):
        distance = (logits - logits.amax(1, keepdim=True)).double() / temperature
        scaled = torch.where(beyond, distance.float(), scaled)
        top = top.masked_fill(beyond, 0.0)
    return scaled, top


def greedy(logits: Tensor) -> tuple[LongTensor, Tensor]:
    """The most likely token of each row and its log-probability (nats)."""
    scaled = logits.float()
    top, ids = scaled.max(1)
    return ids, top - scaled.logsumexp(1)
