"""Experts moved to another base model: copied where the shapes are equal, resampled where they are not."""

import pytest
import torch
from safetensors.torch import load_file

from pipeline.adaptation.transfer import kind_of, moved, resampled, same_depth, shuffled
from pipeline.core.artifacts import read_tensors, write_tensors
from pipeline.core.errors import UserError
from pipeline.methods.lora import Lora
from pipeline.methods.svf import single
from pipeline.model.forward.adapters import load_adapter, save_adapter
from stages import transfer
from tests.tiny import same_tensors, tiny_factors, tiny_model


def expert(ranks: dict[str, int], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 1 + 0.1 * torch.randn(rank, generator=generator) for name, rank in ranks.items()}


def ranks_of(model) -> dict[str, int]:
    return {
        name: min(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layers" in name
    }


@pytest.mark.parametrize("size", [1, 2, 7, 192, 576])
def test_resampling_onto_its_own_shape_is_the_identity_to_the_bit(size: int) -> None:
    z = torch.randn(size, generator=torch.Generator().manual_seed(size))
    assert torch.equal(resampled(z, size), z)


@pytest.mark.parametrize("depth", [1, 2, 30, 31])
def test_the_same_depth_of_a_model_as_deep_is_the_same_layer(depth: int) -> None:
    assert [same_depth(layer, depth, depth) for layer in range(depth)] == list(range(depth))


@pytest.mark.parametrize(("layers", "of"), [(30, 32), (32, 30), (2, 24), (80, 3)])
def test_of_another_depth_the_nearest_layer_is_met(layers: int, of: int) -> None:
    for layer in range(layers):
        nearest = same_depth(layer, layers, of)
        assert 0 <= nearest < of
        assert abs((layer + 0.5) / layers - (nearest + 0.5) / of) <= 0.5 / of + 1e-12


def test_half_as_deep_a_model_gives_each_layer_to_two() -> None:
    assert [same_depth(layer, 4, 2) for layer in range(4)] == [0, 0, 1, 1]


def test_resampling_keeps_what_is_linear_in_relative_rank() -> None:
    z = 2 - torch.arange(64, dtype=torch.float32) / 64
    finer = resampled(z, 256)
    torch.testing.assert_close(finer[:253], 2 - torch.arange(253) / 256)  # the last ones lie behind the last value
    torch.testing.assert_close(resampled(finer, 64), z)


def test_equal_shapes_give_bit_identical_z() -> None:
    ranks = ranks_of(tiny_model(3))
    z = expert(ranks)
    assert same_tensors(moved(z, ranks), z)


def test_every_module_of_another_shape_takes_its_kind_at_its_depth() -> None:
    z = expert(ranks_of(tiny_model(2)))
    ranks = {name: 2 * rank for name, rank in ranks_of(tiny_model(4)).items()}
    new = moved(z, ranks)
    assert {name: len(vector) for name, vector in new.items()} == ranks
    for name, vector in new.items():
        source = name.replace(f"layers.{name.split('.')[2]}.", f"layers.{int(name.split('.')[2]) // 2}.")
        assert torch.equal(vector[::2], z[source]), (name, source)


def test_modules_that_the_expert_does_not_scale_stay_as_they_are() -> None:
    ranks = ranks_of(tiny_model(2))
    attention = {name: vector for name, vector in expert(ranks).items() if "self_attn" in name}
    assert set(moved(attention, ranks)) == set(attention)


def test_a_model_without_an_experts_modules_is_one_sentence() -> None:
    ranks = ranks_of(tiny_model(2))
    fused = {name: rank for name, rank in ranks.items() if "q_proj" not in name}
    with pytest.raises(UserError, match=r"without self_attn.q_proj; move it"):
        moved(expert(ranks), fused)
    assert kind_of("model.layers.12.mlp.up_proj") == "mlp.up_proj"


def test_shuffled_keeps_the_values_and_not_their_order() -> None:
    z = expert(ranks_of(tiny_model(2)))
    once, again = (shuffled(z, torch.Generator().manual_seed(5)) for _ in range(2))
    assert same_tensors(once, again)
    for name, vector in z.items():
        assert torch.equal(once[name].sort().values, vector.sort().values)
        assert not torch.equal(once[name], vector)


@pytest.fixture
def files(tmp_path):
    """An expert of a model of two layers, and the factors of one of its shape and of a deeper one."""
    same, deeper = tmp_path / "same", tmp_path / "deeper"
    for folder, layers in ((same, 2), (deeper, 3)):
        factors = tiny_factors(tiny_model(layers), folder)
        tensors = load_file(factors.path)
        write_tensors(factors.path, {key: tensor.clone() for key, tensor in tensors.items()}, {"base": folder.name})
    z = expert(ranks_of(tiny_model(2)))
    path = tmp_path / "expert.safetensors"
    save_adapter(path, single(z, "expert"), {"task": "sums", "base": "first"})
    return path, z, same / "factors.safetensors", deeper / "factors.safetensors"


def test_a_transferred_expert_says_what_was_done_to_it(files, tmp_path) -> None:
    path, z, same, deeper = files
    out = tmp_path / "of-a-row-0.safetensors"  # a mixture calls it by its name, and not by its file
    transfer.run(order="ordered", seed=0, name="moved", expert=path, factors=same, transferred=out)
    adapter, provenance = load_adapter(out)
    assert same_tensors({name: vectors[0] for name, vectors in adapter.experts.items()}, z)
    assert adapter.mixture.experts == ("moved",)
    assert (provenance["base"], provenance["expert_of"], provenance["resampled"]) == ("same", "first", 0)
    transfer.run(order="ordered", seed=0, name="moved", expert=path, factors=deeper, transferred=out)
    assert load_adapter(out)[1]["resampled"] == 7  # the seven matrices of the third layer
    transfer.run(order="shuffled", seed=0, name="moved", expert=path, factors=same, transferred=out)
    assert load_adapter(out)[1]["order"] == "shuffled"
    assert not same_tensors(read_tensors(out)[0], {f"z.{name}": vector[None] for name, vector in z.items()})


def test_what_cannot_be_moved_is_one_sentence(files, tmp_path) -> None:
    path, _, same, _ = files
    out = tmp_path / "moved.safetensors"
    with pytest.raises(UserError, match="out of ordered, shuffled, got 'sorted'"):
        transfer.run(order="sorted", seed=0, name="moved", expert=path, factors=same, transferred=out)
    save_adapter(path, Lora({"r": 1, "lora_alpha": 1}, {}), {"task": "sums", "base": "first"})
    with pytest.raises(UserError, match="expected a single SVF expert"):
        transfer.run(order="ordered", seed=0, name="moved", expert=path, factors=same, transferred=out)
    assert not out.exists()
