"""Keys and values of tokens that later tokens look at: of a batch that is being answered, or of a common beginning.

Both are what a model of transformers is given as its past: its attention layers call ``update`` with the keys and
values of the tokens of a pass, (rows, key-value heads, tokens, head size), and attend to what that returns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import LongTensor, Tensor


class Cache:
    """Keys and values of one batch, (room, key-value heads, columns, head size) a layer; the first ``rows`` are in use.

    Columns hold the shared beginning of all rows first, then their rests, right-aligned. room: for how many rows there
    will ever be at once (default: as many as now).
    """

    def __init__(
        self, rows: int, columns: int, dtype: torch.dtype, device: torch.device, *, room: int | None = None
    ) -> None:
        self.rows, self.columns, self.dtype, self.device = rows, columns, dtype, device
        self.room = room or rows
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.used = 0
        self._write: Callable[[Tensor, Tensor], None] | None = None
        self._read: Callable[[Tensor, Tensor], Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """What a model's attention layer calls with the keys and values of the tokens it was given."""
        if layer == len(self.keys):
            shape = (self.room, keys.shape[1], self.columns, keys.shape[3])
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
        kept_keys, kept_values = self.keys[layer][: self.rows], self.values[layer][: self.rows]
        kept_keys[:, :, self.used] = keys[:, :, 0]
        kept_values[:, :, self.used] = values[:, :, 0]
        return kept_keys[:, :, : self.used + 1], kept_values[:, :, : self.used + 1]

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

    def copy(self, source: LongTensor, target: LongTensor) -> None:
        """Rows ``target``, in use or the next ones, become what rows ``source`` are."""
        for kept in (*self.keys, *self.values):
            kept[target, :, : self.used] = kept[source, :, : self.used]
        self.rows = max(self.rows, int(target.max()) + 1)

    def keep(self, rows: LongTensor, room: int) -> None:
        """Drop all other rows; their memory is given back, but for ``room`` rows."""
        for layer in range(len(self.keys)):
            for tensors in (self.keys, self.values):
                old = tensors[layer]
                new = old.new_zeros((room, *old.shape[1:]))
                new[: len(rows), :, : self.used] = old[:, :, : self.used].index_select(0, rows)
                tensors[layer] = new
        self.rows, self.room = len(rows), room


class Past:
    """What the passes before a pass left for it, each row of it looking back at a row of the one before. The gradient
    flows through it."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}
        self._rows: LongTensor | None = None

    def branch(self, rows: LongTensor) -> None:
        """Row i of the coming pass sees all that row ``rows[i]`` of the last one saw, and what it was itself."""
        self._rows = rows

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """What a model's attention layer calls with the keys and values of its tokens."""
        if self._rows is not None:
            before = [seen.index_select(0, self._rows) for seen in self._seen[layer]]
            keys, values = (torch.cat([old, new], 2) for old, new in zip(before, (keys, values), strict=True))
        self._seen[layer] = keys, values
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        return 0  # positions and masks are given
