"""Keys and values of tokens that later tokens look at: of rows that are being answered, or of a shared prefix.

Both are what a model of transformers is given as its past. Its attention layers call ``update`` with the keys and
values of the tokens of a pass, (rows, key-value heads, tokens, head size), and attend to what that returns.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import LongTensor, Tensor
from transformers import PreTrainedModel

from pipeline.model.forward.attention import window_of

# How one pass uses one layer's cache. Receives what the layer holds and the keys (or values) of the pass's tokens;
# stores the new ones where they belong; returns what the tokens attend to. It is called for every layer, and indices go
# to the device that the layer is on.
Place = Callable[[Tensor, Tensor], Tensor]


class Cache:
    """Keys and values of several rows, (room, key-value heads, columns, head size) a layer.

    It does not know which token stands in which column: the batch job and the server lay rows out differently, and each
    says by a ``Place`` where the tokens of a pass go.

    rows: the first so many are in use. used: columns in use, of any row. Both are kept by whoever fills the cache.
    room: rows that there is memory for (default: ``rows``).
    dtype: float32 on a CPU, whatever the model's. Attention with one query is bound by memory and by conversions, and
        float32 is the faster of the two there.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int, *, room: int | None = None) -> None:
        self.device = model.device
        self.dtype = torch.float32 if self.device.type == "cpu" else model.dtype
        self.rows, self.columns, self.used = rows, columns, 0
        self.room = rows if room is None else room
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        # Where each column's token stands, (room, 1, columns, 1): asked for where a layer may not see all of them.
        self.window = window_of(model)
        shape = (self.room, 1, columns if self.window else 0, 1)
        self.positions = torch.zeros(shape, dtype=torch.long, device=self.device)
        self._place: Place | None = None

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """What a model's attention layer calls with the keys and values of the tokens it was given."""
        if self._place is None:
            raise ValueError("expected a pass that says where its tokens go, see Cache.placing")
        if layer == len(self.keys):
            shape = (self.room, keys.shape[1], self.columns, keys.shape[3])
            # where the layer is: a model may be spread over several devices
            self.keys.append(torch.zeros(shape, dtype=self.dtype, device=keys.device))
            self.values.append(torch.zeros(shape, dtype=self.dtype, device=keys.device))
        return self._place(self.keys[layer], keys), self._place(self.values[layer], values)

    def get_seq_length(self, layer: int = 0) -> int:
        return 0  # positions and masks are given

    @contextmanager
    def placing(self, place: Place, positions: LongTensor) -> Iterator[LongTensor | None]:
        """The block is one pass of the model, whose tokens go where ``place`` says.

        positions: (rows, tokens) of the pass. Yields the positions of what they look at, (rows, columns); None where
        every layer may see all of it.
        """
        self._place = place
        keys = place(self.positions, positions[:, None, :, None])[:, 0, :, 0] if self.window else None
        try:
            yield keys if self.window is None or self.columns > self.window else None
        finally:
            self._place = None

    def one_token(self, column: int | LongTensor, rows: slice) -> Place:
        """The place of a decode step: one token of each of ``rows`` goes to a column and looks at those up to it.

        column: one for all, or (rows,) one for each; then all look up to the last of them, and a mask hides the rest.
        """
        if isinstance(column, int):

            def in_one_column(kept: Tensor, new: Tensor) -> Tensor:
                held = kept[rows]
                held[:, :, column] = new[:, :, 0]
                return held[:, :, : column + 1]

            return in_one_column
        every, end = torch.arange(len(column), device=column.device), int(column.max()) + 1

        def in_own_columns(kept: Tensor, new: Tensor) -> Tensor:
            held = kept[rows]
            held[every.to(kept.device), :, column.to(kept.device)] = new[:, :, 0].to(kept.dtype)
            return held[:, :, :end]

        return in_own_columns

    def copy(self, source: LongTensor, target: LongTensor) -> None:
        """Rows ``target``, in use or the next ones, become what rows ``source`` are."""
        for kept in (*self.keys, *self.values, *([self.positions] if self.window else [])):
            kept[target.to(kept.device), :, : self.used] = kept[source.to(kept.device), :, : self.used]
        self.rows = max(self.rows, int(target.max()) + 1)

    def keep(self, rows: LongTensor, *, room: int, columns: int | None = None) -> None:
        """Drop all other rows, and have memory for ``room`` rows and ``columns`` columns (default: as many as now)."""
        self.columns = self.columns if columns is None else columns

        def moved(old: Tensor) -> Tensor:
            new = old.new_zeros((room, old.shape[1], self.columns, old.shape[3]))
            new[: len(rows), :, : self.used] = old[:, :, : self.used].index_select(0, rows.to(old.device))
            return new

        self.keys, self.values = [moved(old) for old in self.keys], [moved(old) for old in self.values]
        if self.window:
            self.positions = moved(self.positions)
        self.rows, self.room = len(rows), room

    def leave(self, rows: Sequence[int]) -> list[int]:
        """Free these rows; the last ones take their places. Returns which row each of those that stay was before.

        Of six rows, 1 and 4 leave: the answer is [0, 5, 2, 3].
        """
        before = list(range(self.rows))
        for row in sorted(rows, reverse=True):
            before[row] = before[-1]
            before.pop()
        moved = [row for row, old in enumerate(before) if row != old]
        if moved:
            source = torch.tensor([before[row] for row in moved], device=self.device)
            self.copy(source, torch.tensor(moved, device=self.device))
        self.rows = len(before)
        return before


class Past:
    """What earlier passes left for the coming one, each row of which looks back at a row of the one before.

    Gradients flow through it.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}
        self._rows: LongTensor | None = None
        self._stood: Tensor | None = None

    def stand(self, positions: LongTensor) -> LongTensor:
        """Where what the coming pass looks at stands, (rows, looked back + tokens). positions: (rows, tokens) of it."""
        before = None if self._rows is None or self._stood is None else self._stood.index_select(0, self._rows)
        self._stood = positions if before is None else torch.cat([before, positions], 1)
        return self._stood

    def branch(self, rows: LongTensor) -> None:
        """Row i of the coming pass sees row ``rows[i]`` of the last one, and all that this row saw."""
        self._rows = rows

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        """What a model's attention layer calls with the keys and values of its tokens."""
        if self._rows is not None:
            before = [seen.index_select(0, self._rows.to(seen.device)) for seen in self._seen[layer]]
            keys, values = (torch.cat([old, new], 2) for old, new in zip(before, (keys, values), strict=True))
        self._seen[layer] = keys, values
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        return 0  # positions and masks are given
