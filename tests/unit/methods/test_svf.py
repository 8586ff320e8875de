"""SVF: z scales singular values, in whatever way it is computed."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.core.errors import UserError
from pipeline.core.types import Mixture
from pipeline.methods import svf
from pipeline.model.forward.adapters import Attachment, load_adapter, save_adapter
from pipeline.model.forward.base import layer_of
from tests.tiny import MODULES, same_tensors, tiny_base, tiny_factors


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def factors(base, tmp_path_factory):
    return tiny_factors(base.model, tmp_path_factory.mktemp("svd"))


IDS = torch.randint(3, 60, (4, 9), generator=torch.Generator().manual_seed(1))


def logits(base):
    return base.model(input_ids=IDS).logits


def random_z(factors, seed: int, spread: float = 0.3):
    generator = torch.Generator().manual_seed(seed)
    return {name: 1 + spread * torch.randn(len(factors[name][1]), generator=generator) for name in factors.modules}


def learner(factors, parametrisation: str = "direct") -> svf.SvfLearner:
    targets = svf.Targets(modules=MODULES, parametrisation=parametrisation, init_mean=0.1, init_std=0.01)
    return svf.SvfLearner(factors, targets, torch.Generator().manual_seed(0))


def conditioned(rows: int, columns: int, smallest: float):
    """A matrix with singular values from 1 to ``smallest``."""
    generator = torch.Generator().manual_seed(rows)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64)).Q
    rank = min(rows, columns)
    sigma = torch.logspace(0, math.log10(smallest), rank, dtype=torch.float64)
    return ((left[:, :rank] * sigma) @ right[:rank]).float()


@pytest.mark.parametrize("shape", [(48, 48), (96, 40), (40, 96)], ids=str)
@pytest.mark.parametrize("smallest", [0.1, 2e-4, 1e-6])  # by the squares, by them barely, and not by them
def test_factors_are_right_to_the_rounding_of_float32(shape, smallest):
    weight = conditioned(*shape, smallest)
    u, sigma, vt = svf.decompose(weight)
    rank = min(shape)
    assert (u.shape, sigma.shape, vt.shape) == ((shape[0], rank), (rank,), (rank, shape[1]))
    assert all(factor.dtype == torch.float32 and factor.is_contiguous() for factor in (u, sigma, vt))
    one = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(u.double().T @ u.double(), one, atol=2e-7, rtol=0)
    torch.testing.assert_close(vt.double() @ vt.double().T, one, atol=2e-7, rtol=0)
    torch.testing.assert_close((u.double() * sigma.double()) @ vt.double(), weight.double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(sigma, torch.linalg.svdvals(weight.double()).float(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12)], ids=str)
@pytest.mark.parametrize("rank", [0, 2])
def test_a_matrix_without_full_rank_has_factors_too(shape, rank):
    weight = torch.randn(shape[0], rank) @ torch.randn(rank, shape[1])
    u, sigma, vt = svf.decompose(weight)
    one = torch.eye(min(shape))
    torch.testing.assert_close(u.T @ u, one, atol=1e-6, rtol=0)
    torch.testing.assert_close(vt @ vt.T, one, atol=1e-6, rtol=0)
    torch.testing.assert_close((u * sigma) @ vt, weight, atol=1e-6, rtol=1e-6)
    assert (sigma[rank:] < 1e-6).all()


@pytest.mark.parametrize(("layers", "chosen"), [(None, {0, 1}), ((0,), {0}), (0.5, {1}), (1.0, {0, 1})])
def test_an_expert_scales_the_chosen_layers_alone(base, factors, layers, chosen):
    targets = svf.Targets(modules=MODULES, layers=layers, parametrisation="direct", init_mean=0.1, init_std=0.01)
    trained = svf.SvfLearner(factors, targets, torch.Generator().manual_seed(0))
    assert trained.modules == [name for name in factors.modules if layer_of(name) in chosen]
    assert trained.flat.numel() == sum(len(factors[name][1]) for name in trained.modules)
    with torch.no_grad():
        trained.flat.normal_(0, 0.3, generator=torch.Generator().manual_seed(5))
    with trained.sampling(base.model):
        expected = logits(base)
    with torch.no_grad(), trained.learning(base.model):
        torch.testing.assert_close(logits(base), expected, atol=2e-4, rtol=1e-4)
    left = {name for name, module in base.model.named_modules() if "forward" in vars(module)}
    assert not left and set(trained.adapter("x").experts) == set(trained.modules)


@pytest.mark.parametrize(("share", "layers"), [(0.5, [1, 3, 5, 7]), (0.25, [3, 7]), (0.75, [1, 2, 3, 5, 6, 7])])
def test_a_share_of_the_layers_is_spread_evenly_and_chosen_from_itself_again(share, layers):
    names = [f"model.layers.{layer}.mlp.up_proj" for layer in range(8)]
    chosen = svf.in_layers(names, share)
    assert [layer_of(name) for name in chosen] == layers
    assert svf.in_layers(chosen, share) == chosen  # the factors of some layers are those of the learner's layers


@pytest.mark.parametrize("layers", [(), (8,), (-1, 0), 0.0, 1.5, 0.01])
def test_layers_that_are_not_there_are_one_sentence(layers):
    with pytest.raises(UserError, match="decoder layers from 0 to 7 or a share of them .* correct"):
        svf.in_layers([f"model.layers.{layer}.mlp.up_proj" for layer in range(8)], layers)


def test_the_factors_give_back_the_matrix_to_float32(base, factors):
    for name in factors.modules:
        u, sigma, vt = factors[name]
        torch.testing.assert_close((u * sigma) @ vt, base.model.get_submodule(name).weight.data, atol=2e-6, rtol=0)
        assert bool((sigma[:-1] >= sigma[1:]).all())


def test_z_of_ones_leaves_logits_unchanged(base, factors):
    expected = logits(base)
    ones = {name: torch.ones_like(factors[name][1]) for name in factors.modules}
    with svf.materialised_weights(base.model, factors, ones):
        assert torch.equal(logits(base), expected)
    with svf.row_scaled(base.model, factors, {n: z[None].expand(4, -1) for n, z in ones.items()}) as attachment:
        attachment.begin(torch.arange(4), None)
        torch.testing.assert_close(logits(base), expected, atol=2e-4, rtol=0)


def test_factored_equals_materialised(base, factors):
    trained = learner(factors)
    with torch.no_grad():
        trained.flat.normal_(0, 0.3, generator=torch.Generator().manual_seed(5))
    with trained.sampling(base.model):
        expected = logits(base)
    with torch.no_grad(), trained.learning(base.model):
        torch.testing.assert_close(logits(base), expected, atol=2e-4, rtol=1e-4)


def test_a_batch_of_different_rows_equals_each_expert_alone(base, factors):
    experts = [random_z(factors, seed) for seed in range(4)]
    stacked = {name: torch.stack([z[name] for z in experts]) for name in factors.modules}
    with svf.row_scaled(base.model, factors, stacked) as attachment:
        attachment.begin(torch.arange(4), None)
        together = logits(base)
    for row, z in enumerate(experts):
        with svf.materialised_weights(base.model, factors, z):
            torch.testing.assert_close(together[row], logits(base)[row], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("parametrisation", ["direct", "sigmoid_renormalised"])
def test_gradient_of_z_equals_autograd_through_the_materialised_weight(base, factors, parametrisation):
    trained = learner(factors, parametrisation)
    with torch.no_grad():
        trained.flat.add_(0.1 * torch.randn(trained.flat.shape, generator=torch.Generator().manual_seed(2)))
    target = torch.randn(4, 9, 61, generator=torch.Generator().manual_seed(3))
    with trained.learning(base.model) as attachment:
        attachment.begin(torch.arange(4), None)
        (logits(base) * target).sum().backward()
    found = trained.flat.grad.clone()
    trained.flat.grad = None
    dense = {}
    for name, z in trained.z().items():
        u, sigma, vt = factors[name]
        dense[f"{name}.weight"] = (u * (sigma * z)) @ vt
    output = torch.func.functional_call(base.model, dense, kwargs={"input_ids": IDS}).logits
    (output * target).sum().backward()
    torch.testing.assert_close(found, trained.flat.grad, atol=2e-3, rtol=1e-3)


def test_one_hot_alpha_gives_back_the_trained_expert_exactly(factors):
    singles = [svf.single(random_z(factors, seed), f"e{seed}") for seed in range(3)]
    stacked = svf.stack_experts(singles, ["e0", "e1", "e2"], "paper")
    for mix in ("paper", "delta"):
        for k in range(3):
            row = tuple(float(k == j) for j in range(3))
            mixed = stacked.mixed_by(Mixture(("e0", "e1", "e2"), "all", (row,), mix))
            for name in factors.modules:
                if mix == "paper":
                    assert torch.equal(mixed.z(name), singles[k].z(name))
                else:  # 1 + (z − 1) rounds once
                    torch.testing.assert_close(mixed.z(name), singles[k].z(name), atol=2e-7, rtol=0)


def test_the_stored_z_is_the_one_training_used(base, factors, tmp_path):
    trained = learner(factors, "sigmoid_renormalised")
    save_adapter(tmp_path / "e.safetensors", trained.adapter("e"), {"seed": 0})
    loaded, provenance = load_adapter(tmp_path / "e.safetensors")
    assert provenance == {"seed": 0}
    with torch.no_grad():
        for name, z in trained.z().items():
            assert torch.equal(loaded.z(name)[0], z)
    with trained.sampling(base.model):
        expected = logits(base)
    with loaded.attached(base.model, factors):
        assert torch.equal(logits(base), expected)


def test_sigmoid_renormalised_keeps_the_sum_of_singular_values(factors):
    trained = learner(factors, "sigmoid_renormalised")
    for name, z in trained.z().items():
        sigma = factors[name][1]
        torch.testing.assert_close((sigma * z).sum(), sigma.sum())


def test_a_row_of_zeros_is_the_base_model(factors):
    z = torch.rand(3, 8)
    for mix in ("paper", "delta"):
        assert torch.equal(svf.mix_z(z, torch.zeros(2, 3), mix), torch.ones(2, 8))


def test_layer_mixtures_use_their_own_row(factors):
    singles = [svf.single(random_z(factors, seed), f"e{seed}") for seed in range(2)]
    stacked = svf.stack_experts(singles, ["a", "b"], "paper")
    mixed = stacked.mixed_by(Mixture(("a", "b"), "layer", ((1.0, 0.0), (0.0, 1.0)), "paper"))
    assert torch.equal(mixed.z("model.layers.0.mlp.up_proj"), singles[0].z("model.layers.0.mlp.up_proj"))
    assert torch.equal(mixed.z("model.layers.1.mlp.up_proj"), singles[1].z("model.layers.1.mlp.up_proj"))


def test_base_is_bit_identical_after_detaching(base, factors):
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    expected = logits(base)
    z = random_z(factors, 0)
    with svf.materialised_weights(base.model, factors, z):
        assert not torch.equal(logits(base), expected)
    with pytest.raises(RuntimeError, match="stop"), svf.materialised_weights(base.model, factors, z):
        raise RuntimeError("stop")
    with learner(factors).learning(base.model):
        pass
    with svf.row_scaled(base.model, factors, {n: v[None] for n, v in z.items()}):
        pass
    assert same_tensors(before, base.model.state_dict())
    assert torch.equal(logits(base), expected)
    assert all("forward" not in vars(module) for module in base.model.modules())


def test_no_dense_weight_gradient_is_allocated(base, factors):
    trained = learner(factors)
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default):
                products.append(tuple(result.shape))
            return result

    with trained.learning(base.model) as attachment:
        attachment.begin(torch.arange(4), None)
        loss = base.model.model(input_ids=IDS).last_hidden_state.sum()
        with Products():
            loss.backward()
    # every matrix product of the backward pass has the 36 tokens as a side: none is (out, in) or (in, out)
    assert products
    assert {shape for shape in products if len(shape) == 2} <= {(36, 32), (36, 48), (36, 16)}
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_a_prompt_without_a_mixture_is_an_error_in_one_sentence(base, factors):
    stacked = svf.stack_experts([svf.single(random_z(factors, 0), "a")], ["a"], "paper")
    mixed = stacked.mixed_by(Mixture(("a",), "prompt", ((1.0,),), "paper", ids=("known",)))
    with mixed.attached(base.model, factors) as attachment:
        assert attachment.rows(["known"]) == [0]
        with pytest.raises(UserError, match="expected a mixture for every prompt"):
            attachment.rows(["unknown"])


def test_nan_in_an_expert_is_refused(factors):
    z = random_z(factors, 0)
    z[factors.modules[0]][0] = float("nan")
    with pytest.raises(UserError, match="expected finite z"):
        svf.single(z, "broken")


def test_the_default_attachment_gives_every_prompt_its_own_row():
    assert list(Attachment().rows(["a", "b"])) == [0, 1]
