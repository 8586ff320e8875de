"""From logits to the next token.

Sampling inverts the distribution function, first over blocks of the vocabulary, then within one: one pass of exp over
the logits instead of a sorted or renormalised copy. The log-probability of the token falls out of it.
"""

from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor, nn

BLOCK = 256  # vocabulary entries per block


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn.

    generator: of the random numbers. samples: answers to each prompt. temperature: above 0.
    """

    generator: torch.Generator
    samples: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.samples < 1:
            raise ValueError(
                f"expected a temperature above 0 and a sample or more, got {self}; answer greedily instead"
            )


def sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[LongTensor, Tensor]:
    """Draw one token per row by inverting the distribution function at ``uniform``.

    logits: (rows, vocab). uniform: (rows,) in [0, 1). Returns ids and their log-probabilities (nats) at this
    temperature.
    """
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    rows, vocab = scaled.shape
    top = scaled.amax(1, keepdim=True)
    weights = (scaled - top).exp_()
    if vocab % BLOCK:
        weights = nn.functional.pad(weights, (0, BLOCK - vocab % BLOCK))
    blocks = weights.view(rows, -1, BLOCK)
    # float64: the sum of 49 152 float32 terms is off by more than the probability of a rare token
    cumulated = blocks.sum(-1).double().cumsum(-1)
    total = cumulated[:, -1:]
    point = uniform[:, None].double() * total
    block = torch.searchsorted(cumulated, point, right=True).clamp_(max=cumulated.shape[1] - 1)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).double().cumsum(-1)
    rest = point - torch.where(block > 0, cumulated.gather(1, (block - 1).clamp_(min=0)), 0.0)
    place = torch.searchsorted(inside, rest, right=True)
    # Rounding may leave the point behind the block's last token: step back to its last token of any weight.
    last = (
        BLOCK
        - 1
        - (blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).flip(1) > 0)
        .int()
        .argmax(1, keepdim=True)
    )
    ids = block * BLOCK + torch.minimum(place, last)
    chosen = scaled.gather(1, ids) - top - total.log().float()
    return ids.squeeze(1), chosen.squeeze(1)


def greedy(logits: Tensor) -> tuple[LongTensor, Tensor]:
    """The most likely token of each row and its log-probability (nats)."""
    scaled = logits.float()
    top, ids = scaled.max(1)
    return ids, top - scaled.logsumexp(1)
