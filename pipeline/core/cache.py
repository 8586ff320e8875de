"""Keys and values of tokens that later tokens look at: of a batch that is being answered, or of a common beginning.

Both are what a model of transformers is given as its past: its attention layers call ``update`` with the keys and
values of the tokens of a pass, (rows, key-value heads, tokens, head size), and attend to what that returns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import LongTensor, Tensor


class Cache:
    """Keys and values of one batch, (rows, key-value heads, columns, head size) a layer.

    Columns hold the shared beginning of all rows first, then their rests, right-aligned.
    """

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.columns, self.dtype, self.device = rows, columns, dtype, device
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.used = 0
        self._write: Callable[[Tensor, Tensor], None] | None = None
        self._read: Callable[[Tensor, Tensor], Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """What a model's attention layer calls with the keys and values of the tokens it was given."""
        if layer == len(self.keys):
            shape = (self.rows, keys.shape[1], self.columns, keys.shape[3])
            self.keys.append(torch.zeros(shape, dtype=self.dtype, device=self.device))
            self.values.append(torch.zeros(shape, dtype=self.dtype, device=self.device))
        if self._write is not None or self._read is not None:
            seen = keys, values
            if self._read is not None:
                seen = self._read(self.keys[layer], keys), self._read(self.values[layer], values)
            if self._write is not None:
                self._write(self.keys[layer], keys)
                self._write(self.values[layer], values)
            return seen
        end = self.used + 1
        self.keys[layer][:, :, self.used] = keys[:, :, 0]
        self.values[layer][:, :, self.used] = values[:, :, 0]
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def get_seq_length(self, layer: int = 0) -> int:
        return self.used

    @contextmanager
    def several_tokens(
        self,
        *,
        write: Callable[[Tensor, Tensor], None] | None = None,
        read: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Iterator[None]:
        """A pass over more than one token a row. write: (a layer's cache, the tokens' keys or values) → None, where
        they go; read: the same → what the tokens look at, if not at themselves alone."""
        self._write, self._read = write, read
        try:
            yield
        finally:
            self._write = self._read = None

    def keep(self, rows: LongTensor) -> None:
        """Drop all other rows; their memory is given back."""
        for layer in range(len(self.keys)):
            for tensors in (self.keys, self.values):
                old = tensors[layer]
                new = old.new_zeros((len(rows), *old.shape[1:]))
                new[:, :, : self.used] = old[:, :, : self.used].index_select(0, rows)
                tensors[layer] = new
        self.rows = len(rows)


class Past:
    """Keys and values of beginnings, and then, in front of their own, what the rows of a batch look at. The gradient
    flows through them."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._head: LongTensor | None = None

    def hand_out(self, head: LongTensor) -> None:
        """From now on row i of a batch sees the beginning ``head[i]``."""
        self._head = head

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """What a model's attention layer calls with the keys and values of its tokens, (rows, heads, tokens, size)."""
        if self._head is None:
            self._kept.append((keys, values))
            return keys, values
        old_keys, old_values = (kept.index_select(0, self._head) for kept in self._kept[layer])
        return torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)

    def get_seq_length(self, layer: int = 0) -> int:
        return 0  # positions and masks are given
