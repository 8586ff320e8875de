"""Log-probabilities of answers, and losses on them, without ever holding a (tokens, vocabulary) tensor.

Positions are taken in chunks. Because both losses here are known in closed form, their gradient with respect to the
hidden states is computed in the same pass as their value, chunk by chunk: nothing is stored for, and nothing computed
twice in, the backward pass. Logits are float32 whatever the model's dtype: bfloat16 log-probabilities have 8 bits.
"""

from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor, nn

CHUNK = 64  # positions at a time: 64 × 49 152 float32 logits are 12 MiB, which stays in a CPU's cache


def head_weight(model: nn.Module) -> Tensor:
    """The language-model head, (vocab, hidden)."""
    return model.get_output_embeddings().weight


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    return (hidden @ weight.T).float()


@torch.no_grad()
def token_logprobs(hidden: Tensor, weight: Tensor, target: LongTensor) -> tuple[Tensor, Tensor]:
    """log p(target) of each position, in nats, (N,) float32, and whether no token is likelier, (N,).

    hidden: (N, hidden); target: (N,).
    """
    logprobs, likeliest = [], []
    for states, ids in zip(hidden.split(CHUNK), target.split(CHUNK), strict=True):
        logits = _logits(states, weight)
        logprobs.append(logits.gather(1, ids[:, None]).squeeze(1) - logits.logsumexp(1))
        likeliest.append(logits.argmax(1) == ids)
    if not logprobs:
        return hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.bool)
    return torch.cat(logprobs), torch.cat(likeliest)


@dataclass(frozen=True)
class Objective:
    """loss: a scalar with a gradient. logprobs, kl, entropy: (N,), nats, for the record."""

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
    weight: Tensor,
    target: LongTensor,
    state: LongTensor,
    *,
    advantage: Tensor,
    reference: Tensor | None,
    kl_coefficient: float,
    kl_estimator: str,
) -> Objective:
    """−Σ A · log π(target) + λ Σ KL(π ‖ π_base), over N tokens (Transformer², Eq. 1).

    hidden: (S, hidden) of the policy. target: (N,) the tokens. state: (N,) which of the S predicts each: samples that
    begin alike have states in common, whose logits are computed once. reference: (S, hidden) of the base model, or None
    where λ is 0. advantage: (N,), already divided by whatever the mean is taken over; kl_coefficient likewise.
    kl_estimator: ``full``: over the whole vocabulary; ``k3``: q/p − 1 − log(q/p) at the sampled token, whose
        expectation is the same KL, and whose gradient is taken as that of the estimator.
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
            log_p = _logits(hidden[piece], weight)
            log_p -= log_p.logsumexp(1, keepdim=True)
            p = log_p.exp()
            sampled = log_p[rows, ids]
            entropies.append(-(p * log_p).sum(1)[rows])
            # ∂/∂logits of −A log p(y) is A (p − 1_y); at_target: what stands at y
            at_target = -weights
            kl = torch.zeros_like(sampled)
            change = None
            if reference is not None and kl_coefficient > 0:
                log_q = _logits(reference[piece], weight)
                normaliser = log_q.logsumexp(1, keepdim=True)
                if kl_estimator == "full":
                    ratio = log_p.sub_(log_q).add_(normaliser)  # log p − log q; log_p is not needed any more
                    of_states = (p * ratio).sum(1)
                    kl = of_states[rows]
                    # ∂KL/∂logits = p (log p − log q − KL), as often as the state predicts
                    times = torch.zeros_like(of_states).index_add_(0, rows, torch.ones_like(weights))
                    change = ratio.sub_(of_states[:, None]).mul_(kl_coefficient * times[:, None])
                else:
                    log_ratio = log_q[rows, ids] - normaliser[rows, 0] - sampled
                    kl = log_ratio.exp() - 1 - log_ratio
                    # ∂k3/∂log p(y) = 1 − q/p, and ∂log p(y)/∂logits = 1_y − p
                    at_target = at_target + kl_coefficient * (1 - log_ratio.exp())
            everywhere = torch.zeros(len(p), device=p.device).index_add_(0, rows, -at_target)[:, None]
            direction = p.mul_(everywhere if change is None else change.add_(everywhere))
            direction.index_put_((rows, ids), at_target, accumulate=True)
            gradient[piece] = direction.to(weight.dtype) @ weight
            loss += (-weights * sampled).sum() + kl_coefficient * kl.sum()
            logprobs.append(sampled)
            kls.append(kl)

    def in_order(pieces: list[Tensor]) -> Tensor:
        return torch.zeros(len(order), device=hidden.device).index_copy_(0, order, torch.cat(pieces))

    return Objective(_Linear.apply(hidden, loss, gradient), in_order(logprobs), in_order(kls), in_order(entropies))
