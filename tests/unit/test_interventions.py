"""Where edits go and what keeps R orthonormal."""

import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.interventions import Positions, choose_layers, find_spots, orthonormalised, random_orthonormal


def spots_of(mask_rows: list[str], positions: str, slots: int) -> list[set[tuple[int, int]]]:
    """The (row, column) of the edited tokens of each slot; ``p`` in a row is a prompt token."""
    mask = torch.tensor([[letter == "p" for letter in row] for row in mask_rows])
    spots = find_spots(mask, Positions.parse(positions), slots)
    pairs = list(zip(spots.rows.tolist(), spots.columns.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    return [set(pairs[part]) for part in spots.slots]


def test_positions_are_read_and_anything_else_is_refused():
    assert (Positions.parse("f7+l5").first, Positions.parse("f7+l5").last) == (7, 5)
    assert (Positions.parse("f1").first, Positions.parse("f1").last) == (1, 0)
    assert (Positions.parse("l3").first, Positions.parse("l3").last) == (0, 3)
    for wrong in ("", "7", "f7l7", "l7+f7", "f0", "f1+", "+l1", "f0+l0"):
        with pytest.raises(UserError, match="expected positions"):
            Positions.parse(wrong)


def test_spots_are_the_first_and_last_prompt_tokens_under_either_padding():
    right, left = "ppppp...", "..ppppp."
    assert spots_of([right, left], "f1+l2", 2) == [{(0, 0), (1, 2)}, {(0, 3), (0, 4), (1, 5), (1, 6)}]
    assert spots_of([right, left], "f1+l2", 1) == [{(0, 0), (1, 2), (0, 3), (0, 4), (1, 5), (1, 6)}]


def test_a_prompt_shorter_than_its_positions_is_edited_once_a_token_suffix_first():
    assert spots_of(["ppp.."], "f2+l2", 2) == [{(0, 0)}, {(0, 1), (0, 2)}]
    assert spots_of(["pp..."], "f3+l3", 2) == [set(), {(0, 0), (0, 1)}]
    assert spots_of(["ppp.."], "f7+l7", 1) == [{(0, 0), (0, 1), (0, 2)}]


def test_layers_are_all_or_listed_and_must_exist():
    assert choose_layers("all", 3) == (0, 1, 2)
    assert choose_layers((2, 0), 3) == (0, 2)
    for wrong in ((3,), (-1,), ()):
        with pytest.raises(UserError, match="expected layers from 0 to 2"):
            choose_layers(wrong, 3)


def test_orthonormalising_gives_the_nearest_orthonormal_matrix():
    generator = torch.Generator().manual_seed(0)
    start = random_orthonormal((2, 4, 16), generator)
    torch.testing.assert_close(start @ start.mT, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)
    moved = start + 0.1 * torch.randn(2, 4, 16, generator=generator)
    left, _, right = torch.linalg.svd(moved, full_matrices=False)
    torch.testing.assert_close(orthonormalised(moved), left @ right, atol=1e-5, rtol=0)
    torch.testing.assert_close(orthonormalised(start), start, atol=1e-6, rtol=0)


def test_more_orthonormal_directions_than_dimensions_are_refused():
    with pytest.raises(UserError, match="at most 4 orthonormal directions"):
        random_orthonormal((5, 4), torch.Generator())
