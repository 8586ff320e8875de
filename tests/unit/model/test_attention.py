"""Our attention against PyTorch's, values and gradients."""

import pytest
import torch
from torch.nn import functional

from pipeline.model.forward.attention import attention

ROWS, HEADS, GROUPS, SIZE = 3, 6, 2, 8


def inputs(queries: int, keys: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(ROWS, HEADS, queries, SIZE), (ROWS, GROUPS, keys, SIZE), (ROWS, GROUPS, keys, SIZE)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).float().requires_grad_() for shape in shapes]


def ragged(queries: int, keys: int) -> torch.Tensor:
    """Causal, and every row with padding of its own."""
    causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    padding = torch.arange(keys) >= torch.arange(ROWS)[:, None]
    return (causal & padding[:, None])[:, None] | torch.eye(queries, keys, dtype=torch.bool)


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (4, 9), (1, 5)])
@pytest.mark.parametrize("masked", [True, False])
def test_values_and_gradients_are_those_of_the_plain_formula(queries, keys, masked):
    ours, theirs = inputs(queries, keys), inputs(queries, keys)
    mask = ragged(queries, keys) if masked else torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    mixed, _ = attention(None, *ours, mask if masked else None)
    expected = functional.scaled_dot_product_attention(*theirs, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(mixed, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
    outer = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1))
    mixed.backward(outer)
    expected.backward(outer.transpose(1, 2))
    for tensor, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(tensor.grad, reference.grad, atol=1e-5, rtol=1e-5)


def test_rows_of_padding_that_look_nowhere_stay_finite():
    query, key, value = inputs(5, 5)
    mask = ragged(5, 5)
    mask[1] = False
    mixed, _ = attention(None, query, key, value, mask)
    mixed.sum().backward()
    for tensor in (mixed, query.grad, key.grad, value.grad):
        assert bool(tensor.isfinite().all())


def test_one_query_against_a_cache_is_the_plain_formula():
    query, key, value = (tensor.detach() for tensor in inputs(1, 9))
    hidden = ~ragged(1, 9)
    mask = torch.zeros(ROWS, 1, 1, 9).masked_fill(hidden, -torch.inf)
    mixed, _ = attention(None, query, key, value, mask)
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=~hidden, enable_gqa=True)
    torch.testing.assert_close(mixed, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_without_a_mask_an_encoder_sees_all_of_the_text():
    class Encoder(torch.nn.Module):
        is_causal = False

    query, key, value = (tensor.detach() for tensor in inputs(5, 5))
    mixed, _ = attention(Encoder(), query, key, value, None)
    expected = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(mixed, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
