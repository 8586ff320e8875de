"""Attention for the two shapes this project computes: one query per row, and short sequences with gradients.

Both go through the attention interface of transformers, so any of its models that offers the choice uses them.

1. *One query per row* (a decode step) takes two batched matrix products over the grouped heads. Keys are never
   repeated, and the products run in the cache's precision.
2. *Many queries, on a CPU*: scores and softmax are float32, and the probabilities are kept for the backward pass, which
   is five batched products in the model's dtype. PyTorch's own backward pass on a CPU takes several times as long for a
   few hundred tokens. The kept probabilities are (rows, heads, seq, seq), so the memory grows with the square of the
   length: from LONG tokens on, and on a GPU, PyTorch's attention is used.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "selfadapt"
LONG = 1024  # tokens


class _GroupedAttention(torch.autograd.Function):
    """softmax(q kᵀ · scaling + mask) v over grouped heads.

    query: (rows, heads, queries, size); key, value: (rows, groups, keys, size); mask: bool, True where a query may
    look, or a number to add, (rows or 1, 1, queries, keys). Returns (rows, heads, queries, size).
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
        rows, heads, queries, size = query.shape
        groups, keys = key.shape[1], key.shape[2]
        # float32: bfloat16 scores would be off by hundredths, and the sampler's probabilities with them
        grouped = query.float().reshape(rows * groups, -1, size) * scaling
        scores = torch.bmm(grouped, key.float().reshape(rows * groups, keys, size).transpose(1, 2))
        scores = scores.view(rows, heads, queries, keys)
        # not −∞: a row of padding may look nowhere, and 0/0 would spread from it through masked values, 0 · NaN
        nowhere = torch.finfo(scores.dtype).min
        scores = scores.masked_fill_(~mask, nowhere) if mask.dtype == torch.bool else scores.add_(mask)
        weights = scores.softmax(-1)
        mixed = torch.bmm(weights.view(rows * groups, -1, keys), value.float().reshape(rows * groups, keys, size)).view(
            rows, heads, queries, size
        )
        ctx.scaling = scaling
        ctx.save_for_backward(query, key, value, weights.to(query.dtype))
        return mixed.to(query.dtype)

    @staticmethod
    def backward(ctx, outer: Tensor):
        query, key, value, weights = ctx.saved_tensors
        rows, size = query.shape[0], query.shape[3]
        groups, keys = key.shape[1], key.shape[2]
        flat_query = query.reshape(rows * groups, -1, size)
        flat_key, flat_value = (part.reshape(rows * groups, keys, size) for part in (key, value))
        flat_weights = weights.view(rows * groups, -1, keys)
        flat_outer = outer.reshape(rows * groups, -1, size)
        value_gradient = torch.bmm(flat_weights.transpose(1, 2), flat_outer)
        # ∂L/∂scores = P ⊙ (∂L/∂P − Σ over keys of P ⊙ ∂L/∂P), in float32: a difference of near-equal numbers
        weights32 = flat_weights.float()
        slope = torch.bmm(flat_outer, flat_value.transpose(1, 2)).float().mul_(weights32)
        slope.sub_(weights32 * slope.sum(-1, keepdim=True))
        scores_gradient = slope.mul_(ctx.scaling).to(query.dtype)
        query_gradient = torch.bmm(scores_gradient, flat_key)
        key_gradient = torch.bmm(scores_gradient.transpose(1, 2), flat_query)
        return query_gradient.view_as(query), key_gradient.view_as(key), value_gradient.view_as(value), None, None


def _one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """query: (rows, heads, 1, size); mask: numbers to add, (rows, 1, 1, keys). Returns (rows, heads, 1, size)."""
    rows, heads, _, size = query.shape
    groups = key.shape[1]
    grouped = query.reshape(rows, groups, heads // groups, size).to(key.dtype) * scaling
    weights = torch.matmul(grouped, key.transpose(-1, -2)).add_(mask).softmax(-1)
    return torch.matmul(weights, value).to(query.dtype).view(rows, heads, 1, size)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What a model of transformers calls; returns (rows, queries, heads, size). options: ``dropout`` matters."""
    queries, keys, dropout = query.shape[2], key.shape[2], options.get("dropout", 0.0)
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    if queries == 1 and attention_mask is not None and attention_mask.is_floating_point():
        return _one_query(query, key, value, attention_mask, scaling).transpose(1, 2), None
    if query.device.type != "cpu" or keys > LONG or dropout:
        key, value = key.to(query.dtype), value.to(query.dtype)
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    if attention_mask is None:
        attention_mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device)
        if getattr(module, "is_causal", True):  # an encoder's tokens see all of the text
            attention_mask = attention_mask.tril(keys - queries)
    return _GroupedAttention.apply(query, key, value, attention_mask, scaling).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
