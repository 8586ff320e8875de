"""A skill added later: the new one is learnt, the old ones stay as they are, to the bit."""

import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.methods import csreft
from pipeline.model.forward.base import decoder
from pipeline.training.growing import Grown, enlarged, new_skill
from tests.tiny import tiny_model
from tests.unit.methods.test_csreft import RANK, SKILLS, batch, made, run, settings, spread_gates

OLD = len(SKILLS)


@pytest.fixture(scope="module")
def model():
    return tiny_model(layers=3)


def grown_from(adapter: csreft.CsReft) -> csreft.CsReft:
    config, tensors = enlarged(adapter.config(), adapter.state(), "four", 1.0, torch.Generator().manual_seed(5))
    return csreft.from_state(config, tensors)


def trained(model, larger: csreft.CsReft) -> None:
    ids, prompt, attention = batch()
    growing = Grown(larger)
    optimizer = torch.optim.AdamW(growing.parameters(), lr=0.02, weight_decay=0.1)
    with growing.learning(model) as gating:
        for _ in range(20):
            gating.begin(torch.arange(4), prompt)
            states = decoder(model)(input_ids=ids, attention_mask=attention).last_hidden_state
            optimizer.zero_grad()
            (states[:, -1].square().sum() + growing.extra_loss()).backward()
            optimizer.step()
            growing.retract()


@pytest.mark.parametrize("orthonormal", ["within", "across"])
def test_training_a_new_skill_changes_no_bit_of_the_old(model, orthonormal):
    before = made(model, orthonormal=orthonormal)
    spread_gates(before)
    larger = grown_from(before)
    started = {name: tensor.clone() for name, tensor in larger.state().items()}
    trained(model, larger)
    after, old = larger.state(), before.state()
    for name in ("rotation", "weight", "bias"):
        assert torch.equal(after[name][:, :, : OLD * RANK], old[name])
        assert not torch.equal(after[name][:, :, OLD * RANK :], started[name][:, :, OLD * RANK :])
    for name in ("router_in_weight", "router_in_bias"):
        assert torch.equal(after[name], old[name])
    for name in ("router_out_weight", "router_out_bias"):
        assert torch.equal(after[name][:OLD], old[name]) and not torch.equal(after[name][OLD:], started[name][OLD:])
    products = after["rotation"] @ after["rotation"].mT
    new = products[..., OLD * RANK :, OLD * RANK :]
    torch.testing.assert_close(new, torch.eye(RANK).expand_as(new), atol=1e-5, rtol=0)
    crossed = products[..., OLD * RANK :, : OLD * RANK].abs().max()
    assert (crossed < 1e-5) == (orthonormal == "across")
    with torch.no_grad():
        assert torch.equal(run(model, larger)[1][:, :OLD], run(model, before)[1])


def test_a_prompt_whose_new_gate_is_closed_is_answered_as_before(model):
    before = made(model)
    spread_gates(before)
    larger = grown_from(before)
    trained(model, larger)
    with torch.no_grad():
        larger.router_out_bias[OLD] = -50.0
        torch.testing.assert_close(run(model, larger)[0], run(model, before)[0], atol=1e-6, rtol=1e-6)


def test_a_new_skill_starts_as_the_old_adapter(model):
    before = made(model)
    with torch.no_grad():
        torch.testing.assert_close(run(model, grown_from(before))[0], run(model, before)[0], atol=1e-5, rtol=1e-5)


def test_a_skill_that_is_there_and_an_adapter_without_a_router_are_refused(model):
    adapter, draw = made(model), torch.Generator()
    with pytest.raises(UserError, match="expected a skill other than one, two, three"):
        enlarged(adapter.config(), adapter.state(), "two", 1.0, draw)
    bare = csreft.initial(model, settings({"input": "none"}), SKILLS, draw)
    with pytest.raises(UserError, match="of an adapter with a router"):
        enlarged(bare.config(), bare.state(), "four", 1.0, draw)


def test_the_new_skill_is_the_one_that_is_not_known():
    assert new_skill(["one", "two"], ["two", "three", "one"]) == "three"
    with pytest.raises(UserError, match="expected examples of one skill beside one, two, .* got three, four; name one"):
        new_skill(["one", "two"], ["three", "four"])
