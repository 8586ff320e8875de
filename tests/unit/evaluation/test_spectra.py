"""Shares of the top singular components: by hand, and on factors whose spectrum is known."""

import pandas as pd
import pytest
import torch

from pipeline.core.artifacts import write_tensors
from pipeline.evaluation.spectra import FRACTIONS, shares, top_shares
from pipeline.methods.svf import single
from pipeline.model.forward.adapters import save_adapter
from stages import spectra


def test_shares_are_sums_of_the_first_components_over_all() -> None:
    assert shares(torch.tensor([4.0, 3.0, 2.0, 1.0]), (0.25, 0.5, 0.75, 1.0)) == pytest.approx([0.4, 0.7, 0.9, 1.0])
    assert shares(torch.zeros(4), (0.5, 1.0)) == [0.0, 0.0]


def test_a_change_of_all_components_alike_lies_on_the_diagonal() -> None:
    held = top_shares(torch.linspace(2, 1, 40), {"alike": torch.full((40,), 1.1), "top": torch.ones(40)})
    assert held["alike"] == pytest.approx(FRACTIONS)
    assert all(share > top for share, top in zip(held["sigma"][:-1], FRACTIONS[:-1], strict=True))
    assert held["top"] == [0.0] * len(FRACTIONS)  # z of ones changes nothing


def test_the_stage_writes_a_line_for_every_matrix_and_what_it_holds(tmp_path) -> None:
    names = [f"model.layers.{layer}.mlp.up_proj" for layer in range(2)]
    factors = tmp_path / "base.safetensors"
    ones = {"u": torch.eye(4), "sigma": torch.tensor([4.0, 3.0, 2.0, 1.0]), "vt": torch.eye(4)}
    write_tensors(factors, {f"{name}.{key}": value.clone() for name in names for key, value in ones.items()}, {})
    expert = tmp_path / "svf-sums-0.safetensors"
    save_adapter(expert, single({name: torch.tensor([2.0, 1.0, 1.0, 0.0]) for name in names}, "sums"), {})
    spectra.run(factors=factors, experts=[expert], shares=tmp_path / "shares.parquet")
    frame = pd.read_parquet(tmp_path / "shares.parquet")
    assert (
        len(frame) == 2 * 2 * len(FRACTIONS) and set(frame["layer"]) == {0, 1} and set(frame["module"]) == {"up_proj"}
    )
    half = frame[frame["top"] == 0.5].groupby("of")["share"].mean()
    assert half["sigma"] == pytest.approx(0.7) and half["svf-sums-0"] == pytest.approx(0.5)
