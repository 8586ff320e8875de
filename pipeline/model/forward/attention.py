"""Attention for the two shapes this project computes: one query per row, and short sequences with gradients.

Both go through the attention interface of transformers, so any of its models that offers the choice uses them.

1. *One query per row* (a decode step) takes two batched matrix products over the grouped heads. Keys are never
   repeated, and the products run in the cache's precision.
2. *Many queries, on a CPU*: scores and softmax are float32, and the probabilities are kept for the backward pass, which
   is five batched products in the model's dtype. PyTorch's own backward pass on a CPU takes several times as long for a
   few hundred tokens. The kept probabilities are (rows, heads, seq, seq), so the memory grows with the square of the
   length: from LONG tokens on, and on a GPU, PyTorch's attention is used.

Some families bound the scores smoothly (Gemma 2), or have a sink beside the keys (gpt-oss): these take a plain path.

A layer with a sliding window sees only the last so many tokens. This project gives one mask for all layers, so a pass
says where its tokens and keys stand (``standing``), and each layer hides what lies outside of its own window.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import LongTensor, Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "selfadapt"
LONG = 1024  # tokens


class _Standing:
    """Where the tokens of a pass and the keys they may look at stand in their sequences.

    queries: (rows, queries). keys: (rows, keys).
    """

    def __init__(self, queries: LongTensor, keys: LongTensor) -> None:
        self.queries, self.keys = queries, keys
        self._masks: dict[tuple[int, torch.device], Tensor] = {}

    def inside(self, mask: Tensor, window: int) -> Tensor:
        """The mask of a pass, which is one for all its layers, with what lies outside of a window hidden."""
        kind = window, mask.device
        if kind not in self._masks:
            outside = self.keys[:, None, None, :] <= self.queries[:, None, :, None] - window
            outside, hides = outside.to(mask.device), mask.dtype == torch.bool
            self._masks[kind] = mask & ~outside if hides else mask.masked_fill(outside, -torch.inf)
        return self._masks[kind]


_standing: ContextVar[_Standing | None] = ContextVar("standing", default=None)


@contextlib.contextmanager
def standing(queries: LongTensor, keys: LongTensor | None) -> Iterator[None]:
    """The block is one pass: its tokens stand at ``queries``, (rows, tokens), what they look at at ``keys``, (rows,
    columns). None: no layer of the model has a window that matters here."""
    before = _standing.set(None if keys is None else _Standing(queries, keys))
    try:
        yield
    finally:
        _standing.reset(before)


def window_of(model: nn.Module) -> int | None:
    """The window of those of a model's layers that have one, in tokens; None where each layer sees everything."""
    config: Any = getattr(model, "config", None)
    return None if config is None else getattr(config.get_text_config(), "sliding_window", None)


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


def _plain(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, cap: float | None, sinks: Tensor | None
) -> Tensor:
    """softmax(cap · tanh(q kᵀ · scaling / cap) + mask) v, in float32; the weight of a sink goes to no key.

    sinks: (heads,) a score beside those of the keys. Other shapes: see ``_GroupedAttention``.
    """
    rows, heads, queries, size = query.shape
    groups = key.shape[1]
    grouped = query.float().reshape(rows, groups, -1, queries, size)
    scores = grouped @ key.float().transpose(-1, -2)[:, :, None] * scaling
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    nowhere = torch.finfo(scores.dtype).min
    scores = scores.reshape(rows, heads, queries, -1)
    scores = scores.masked_fill(~mask, nowhere) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:
        scores = torch.cat([scores, sinks.float()[None, :, None, None].expand(rows, -1, queries, 1)], 3)
    weights = scores.softmax(-1)[..., : key.shape[2]].reshape(rows, groups, -1, queries, key.shape[2])
    return (weights @ value.float()[:, :, None]).reshape(rows, heads, queries, -1).to(query.dtype)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What a model of transformers calls; returns (rows, queries, heads, size).

    options: ``dropout``, ``sliding_window``, ``softcap`` and ``s_aux`` (sinks) matter.
    """
    queries, keys, dropout = query.shape[2], key.shape[2], options.get("dropout", 0.0)
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    # A layer of Exaone 4 has a window that it says it does not use.
    window = options.get("sliding_window", getattr(module, "sliding_window", None))
    where = _standing.get()
    if window is not None and where is not None and attention_mask is not None:
        attention_mask = where.inside(attention_mask, window)
    cap, sinks = options.get("softcap"), options.get("s_aux")
    if cap is not None or sinks is not None:
        mask = _causal(module, query, keys) if attention_mask is None else attention_mask
        return _plain(query, key, value, mask, scaling, cap, sinks).transpose(1, 2), None
    if queries == 1 and attention_mask is not None and attention_mask.is_floating_point():
        return _one_query(query, key, value, attention_mask, scaling).transpose(1, 2), None
    if query.device.type != "cpu" or keys > LONG or dropout:
        key, value = key.to(query.dtype), value.to(query.dtype)
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    if attention_mask is None:
        attention_mask = _causal(module, query, keys)
    return _GroupedAttention.apply(query, key, value, attention_mask, scaling).transpose(1, 2), None


def _causal(module: nn.Module, query: Tensor, keys: int) -> Tensor:
    """What a model means by no mask, (queries, keys): an encoder's tokens see all of the text, others what precedes."""
    everything = torch.ones(query.shape[2], keys, dtype=torch.bool, device=query.device)
    return everything.tril(keys - query.shape[2]) if getattr(module, "is_causal", True) else everything


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
