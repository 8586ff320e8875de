"""Log-probabilities of answers, and losses on them, without ever holding a (tokens, vocabulary) tensor.

Positions are taken in chunks. The gradients of the losses here are known in closed form, so a chunk's gradient with
respect to the hidden states is computed together with its value: nothing is stored for the backward pass, which
computes nothing a second time. Logits are float32 whatever the model's dtype: bfloat16 log-probabilities have 8 bits.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import LongTensor, Tensor

from pipeline.model.forward.lm_head import LmHead

CHUNK = 64  # positions at a time: 64 × 49 152 float32 logits are 12 MiB, which stays in a CPU's cache


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """The logits divided by the temperature, in place."""
    return logits if temperature == 1 else logits.div_(temperature)


@torch.no_grad()
def token_logprobs(hidden: Tensor, head: LmHead, target: LongTensor) -> tuple[Tensor, Tensor]:
    """log p(target) of each position, (N,) float32 in nats, and whether no other token is likelier, (N,).

    hidden: (N, hidden). target: (N,).
    """
    logprobs, likeliest = [], []
    for states, ids in zip(hidden.split(CHUNK), target.split(CHUNK), strict=True):
        logits = head.logits(states)
        logprobs.append(logits.gather(1, ids[:, None]).squeeze(1) - logits.logsumexp(1))
        likeliest.append(logits.argmax(1) == ids)
    if not logprobs:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.bool)
    return torch.cat(logprobs), torch.cat(likeliest)


@dataclass(frozen=True)
class Penalty:
    """λ KL(π ‖ π_base), added to the loss.

    reference: the base model's states, (S, hidden).
    coefficient: λ, divided by whatever the loss is a mean over.
    estimator: ``full`` sums over the whole vocabulary. ``k3`` is q/p − 1 − log(q/p) at the sampled token; its
        expectation is the same KL, and its gradient is taken as that of the estimator.
    """

    reference: Tensor
    coefficient: float
    estimator: Literal["full", "k3"]

    def of_vocabulary(self, log_p: Tensor, p: Tensor, log_q: Tensor, rows: LongTensor) -> tuple[Tensor, Tensor]:
        """KL at each token, (N,), and the loss's slope with respect to the logits, (states, vocab).

        rows: (N,) the state that predicts each token. ``log_p`` is overwritten.
        """
        ratio = log_p.sub_(log_q).add_(log_q.logsumexp(1, keepdim=True))  # log p − log q
        of_states = (p * ratio).sum(1)
        # ∂KL/∂logits = p (log p − log q − KL), as often as the state predicts; the factor p comes later
        times = torch.zeros_like(of_states).index_add_(0, rows, torch.ones(len(rows), device=rows.device))
        return of_states[rows], ratio.sub_(of_states[:, None]).mul_(self.coefficient * times[:, None])

    def of_samples(self, sampled: Tensor, log_q: Tensor, rows: LongTensor, ids: LongTensor) -> tuple[Tensor, Tensor]:
        """KL at each token, (N,), and the loss's slope with respect to the token's own log-probability, (N,).

        sampled: (N,) log p of each token, whose id is in ``ids``.
        """
        log_ratio = log_q[rows, ids] - log_q.logsumexp(1, keepdim=True)[rows, 0] - sampled
        # ∂k3/∂log p(y) = 1 − q/p
        return log_ratio.exp() - 1 - log_ratio, self.coefficient * (1 - log_ratio.exp())


@dataclass(frozen=True)
class Objective:
    """loss: a scalar with a gradient. logprobs, kl, entropy: (N,) of each token (nats), for the record."""

    loss: Tensor
    logprobs: Tensor
    kl: Tensor
    entropy: Tensor


class _Linear(torch.autograd.Function):
    """A scalar whose gradient with respect to the hidden states is already known."""

    @staticmethod
    def forward(ctx, hidden: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx, outer: Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * outer.to(gradient.dtype), None, None


def policy_objective(
    hidden: Tensor,
    head: LmHead,
    target: LongTensor,
    state: LongTensor,
    *,
    advantage: Tensor,
    penalty: Penalty | None = None,
    temperature: float = 1.0,
) -> Objective:
    """−Σ A · log π(target) + λ Σ KL(π ‖ π_base), over N tokens (Transformer², Eq. 1).

    hidden: the policy's states, (S, hidden).
    target: the tokens, (N,).
    state: (N,) which of the S states predicts each token. Samples that begin alike have states in common, whose logits
        are computed once.
    advantage: A, (N,), divided by whatever the loss is a mean over.
    penalty: default: λ is 0.
    temperature: τ of π ∝ exp(logits / τ), and of π_base.
    """
    gradient = torch.empty_like(hidden)
    loss = torch.zeros((), device=hidden.device)
    logprobs, kls, entropies = [], [], []
    order = state.argsort(stable=True)
    starts = range(0, hidden.shape[0], CHUNK)
    ends = torch.searchsorted(state[order], torch.tensor([start + CHUNK for start in starts], device=state.device))
    with torch.no_grad():
        for start, tokens in zip(starts, order.tensor_split(ends.cpu()), strict=False):
            piece = slice(start, start + CHUNK)
            rows, ids, weights = state[tokens] - start, target[tokens], advantage[tokens].float()
            logits = head.logits(hidden[piece])
            of_head = head.slope(logits)
            log_p = _tempered(logits, temperature)
            log_p -= log_p.logsumexp(1, keepdim=True)
            p = log_p.exp()
            sampled = log_p[rows, ids]
            entropies.append(-(p * log_p).sum(1)[rows])
            # ∂/∂logits of −A log p(y) is A (p − 1_y); at_target: what stands at y
            at_target = -weights
            kl, slope = torch.zeros_like(sampled), None
            if penalty is not None:
                log_q = _tempered(head.logits(penalty.reference[piece]), temperature)
                if penalty.estimator == "full":
                    kl, slope = penalty.of_vocabulary(log_p, p, log_q, rows)
                else:
                    kl, more = penalty.of_samples(sampled, log_q, rows, ids)
                    at_target = at_target + more
            everywhere = torch.zeros(len(p), device=p.device).index_add_(0, rows, -at_target)[:, None]
            direction = p.mul_(everywhere if slope is None else slope.add_(everywhere))
            direction.index_put_((rows, ids), at_target, accumulate=True)
            gradient[piece] = head.of_states(_tempered(direction, temperature), of_head)
            loss += (-weights * sampled).sum() + (penalty.coefficient * kl.sum() if penalty is not None else 0.0)
            logprobs.append(sampled)
            kls.append(kl)

    def in_order(pieces: list[Tensor]) -> Tensor:
        return torch.zeros(len(order), device=hidden.device).index_copy_(0, order, torch.cat(pieces))

    return Objective(_Linear.apply(hidden, loss, gradient), in_order(logprobs), in_order(kls), in_order(entropies))
