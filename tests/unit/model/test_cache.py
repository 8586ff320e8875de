"""How rows of the cache move: what stands in them goes with them."""

import torch

from pipeline.model.decoding.answer import _branched
from pipeline.model.decoding.cache import Cache
from tests.tiny import tiny_model

HEADS, SIZE = 2, 3
STANDING = torch.zeros(0, 0)  # positions, which nobody asks for: the model has no windows


def filled(rows: int, columns: int = 5, *, room: int | None = None) -> Cache:
    """One layer, in which every key of row r is r, and every value −r."""
    cache = Cache(tiny_model(), rows, columns, room=room)
    new = torch.arange(float(rows))[:, None, None, None].expand(-1, HEADS, columns, SIZE)

    def place(kept, new):
        kept[:rows] = new
        return new

    with cache.placing(place, STANDING):
        cache.update(new, -new, 0)
    cache.used = columns
    return cache


def held(cache: Cache) -> list[int]:
    """The number of what each row in use holds."""
    keys, values = (tensor[: cache.rows, :, : cache.used] for tensor in (cache.keys[0], cache.values[0]))
    assert torch.equal(keys, -values)
    assert torch.equal(keys, keys[:, :1, :1, :1].expand_as(keys))
    return keys[:, 0, 0, 0].int().tolist()


def test_the_last_rows_take_the_places_of_those_that_leave():
    cache = filled(6)
    assert cache.leave([1, 4]) == [0, 5, 2, 3] == held(cache)
    assert cache.leave([]) == [0, 1, 2, 3]
    assert cache.leave([3]) == [0, 1, 2]
    assert held(cache) == [0, 5, 2]
    assert cache.leave([0, 1, 2]) == [] == held(cache)


def test_rows_that_are_kept_move_together_and_columns_may_be_added():
    cache = filled(4)
    cache.keep(torch.tensor([3, 1]), room=3, columns=7)
    assert held(cache) == [3, 1]
    assert cache.keys[0].shape == (3, HEADS, 7, SIZE)
    assert not cache.keys[0][2:].any() and not cache.keys[0][:, :, 5:].any()


def test_samples_that_part_go_on_in_copies_of_their_row():
    cache = filled(2, room=6)
    row = _branched(cache, torch.tensor([0, 0, 0, 1]), torch.tensor([8, 9, 8, 7]))
    assert row.tolist() == [0, 2, 0, 1]
    assert held(cache) == [0, 1, 0]
    # The first two samples have ended: their row is free for the next one that parts.
    row = _branched(cache, torch.tensor([2, 0, 0]), torch.tensor([5, 5, 6]))
    assert (row.tolist(), held(cache)) == ([2, 0, 1], [0, 0, 0])


def test_rows_that_no_sample_needs_are_given_up_when_they_are_many():
    cache = filled(4)
    row = _branched(cache, torch.tensor([3, 1]), torch.tensor([8, 9]))
    assert (row.tolist(), held(cache), cache.room) == ([1, 0], [1, 3], 2)


def test_tokens_go_to_one_column_or_to_columns_of_their_own():
    new = torch.full((2, HEADS, 1, SIZE), 9.0)
    cache = filled(3)
    for column in (3, torch.tensor([3, 3])):
        with cache.placing(cache.one_token(column, slice(1, 3)), STANDING):
            keys, _ = cache.update(new, -new, 0)
        assert keys.shape == (2, HEADS, 4, SIZE)
        assert keys[:, 0, :, 0].tolist() == [[1, 1, 1, 9], [2, 2, 2, 9]]
        assert cache.keys[0][:, 0, 4, 0].tolist() == [0, 1, 2]
        cache = filled(3)
    with cache.placing(cache.one_token(torch.tensor([4, 1]), slice(1, 3)), STANDING):
        keys, _ = cache.update(new, -new, 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 1, 1, 1, 9], [2, 9, 2, 2, 2]]
    assert cache.keys[0][0].eq(0).all()
