"""LoReFT, DiReFT and NoReFT against their formulas, token by token."""

from contextlib import contextmanager

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.methods import reft
from pipeline.model.forward.adapters import load_adapter, save_adapter
from pipeline.model.forward.base import decoder, decoder_layers
from tests.tiny import same_tensors

HIDDEN, RANK = 32, 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def settings(**changes) -> reft.Settings:
    values = {
        "formula": "loreft",
        "rank": RANK,
        "layers": "all",
        "positions": "f1+l1",
        "tied": True,
        "initial": "random",
    }
    return reft.Settings.parse({**values, **changes}, "reft.adapter")


def made(model, **changes) -> reft.Reft:
    adapter = reft.initial(model, settings(**changes), torch.Generator().manual_seed(1))
    with torch.no_grad():
        adapter.bias.normal_(generator=torch.Generator().manual_seed(2))
    return adapter


def run(model, adapter, ids, prompt_mask, attention):
    """Final hidden states (batch, seq, hidden) with the adapter attached."""
    with torch.no_grad(), adapter.attached(model, None) as attachment:
        attachment.begin(torch.arange(len(ids)), prompt_mask)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        return decoder(model)(input_ids=ids, attention_mask=attention, position_ids=positions).last_hidden_state


def formula(adapter, layer: int, slot: int, h: torch.Tensor) -> torch.Tensor:
    """h (hidden,) after its edit, term by term."""
    rotation, weight, bias = adapter.rotation[layer, slot], adapter.weight[layer, slot], adapter.bias[layer, slot]
    name = adapter.config()["formula"]
    edited = h.clone()
    for row in range(len(bias)):
        target = weight[row] @ h + bias[row]
        if name != "direft":
            target = target - rotation[row] @ h
        edited = edited + target * rotation[row]
    return edited


@contextmanager
def slow_edits(model, adapter, lengths: list[int], starts: list[int]):
    """The edits done by hand: one token after the other, by plain Python rules of where they belong."""
    first, last = adapter.positions.first, adapter.positions.last
    tied = adapter.config()["tied"]

    def hook(layer):
        def apply(module, args, output):
            output = output.clone()
            for row, (length, start) in enumerate(zip(lengths, starts, strict=True)):
                for place in range(length):
                    in_suffix = place >= length - last
                    if in_suffix or place < first:
                        slot = 1 if in_suffix and not tied else 0
                        output[row, start + place] = formula(adapter, layer, slot, output[row, start + place])
            return output

        return apply

    handles = [decoder_layers(model)[layer].register_forward_hook(hook(layer)) for layer in adapter.layers]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["f1+l1", "f7+l7"])
@pytest.mark.parametrize("name", ["loreft", "direft", "noreft"])
def test_formula_holds_token_by_token(model, name, positions, tied, padding):
    adapter = made(model, formula=name, positions=positions, tied=tied)
    lengths, seq, answer = [16, 9, 4], 20, 2
    ids = torch.randint(0, 61, (3, seq), generator=torch.Generator().manual_seed(3))
    starts = [seq - length - answer if padding == "left" else 0 for length in lengths]
    place = torch.arange(seq)
    start, length = torch.tensor(starts)[:, None], torch.tensor(lengths)[:, None]
    prompt = (place >= start) & (place < start + length)
    attention = (place >= start) & (place < start + length + answer)
    fast = run(model, adapter, ids, prompt, attention)
    with torch.no_grad(), slow_edits(model, adapter, lengths, starts):
        positions_ids = (attention.cumsum(1) - 1).clamp(min=0)
        slow = decoder(model)(input_ids=ids, attention_mask=attention, position_ids=positions_ids).last_hidden_state
    torch.testing.assert_close(fast[attention], slow[attention], atol=1e-5, rtol=1e-5)


def test_batched_equals_unbatched(model):
    adapter = made(model, positions="f2+l3", tied=False)
    prompts = [torch.arange(3, 3 + length) for length in (12, 5, 2)]
    longest = 12
    ids = torch.stack([torch.cat([torch.zeros(longest - len(p), dtype=torch.long), p]) for p in prompts])
    mask = torch.stack([torch.arange(longest) >= longest - len(p) for p in prompts])
    together = run(model, adapter, ids, mask, mask)
    for row, prompt in enumerate(prompts):
        alone = torch.ones(1, len(prompt), dtype=torch.bool)
        single = run(model, adapter, prompt[None], alone, alone)
        torch.testing.assert_close(together[row, longest - len(prompt) :], single[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["loreft", "direft", "noreft"])
def test_identity_start_leaves_logits_unchanged(model, name):
    adapter = reft.initial(model, settings(formula=name, initial="identity"), torch.Generator().manual_seed(1))
    ids = torch.arange(1, 11)[None]
    mask = torch.ones(1, 10, dtype=torch.bool)
    with torch.no_grad():
        before = decoder(model)(input_ids=ids).last_hidden_state
    assert torch.equal(run(model, adapter, ids, mask, mask), before)


def test_decode_steps_are_not_edited(model):
    adapter = made(model)
    ids = torch.tensor([[5], [6]])
    with torch.no_grad():
        before = decoder(model)(input_ids=ids).last_hidden_state
        with adapter.attached(model, None) as attachment:
            attachment.begin(torch.arange(2), None)
            assert torch.equal(decoder(model)(input_ids=ids).last_hidden_state, before)


def test_base_is_bit_identical_after_detaching(model):
    ids = torch.arange(1, 11)[None]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(input_ids=ids).logits
    mask = torch.ones(1, 10, dtype=torch.bool)
    edited = run(model, made(model), ids, mask, mask)
    with torch.no_grad():
        assert not torch.equal(edited, decoder(model)(input_ids=ids).last_hidden_state)
        assert torch.equal(model(input_ids=ids).logits, before)
    assert same_tensors(dict(model.state_dict()), weights)


@pytest.mark.parametrize("name", ["loreft", "direft", "noreft"])
def test_parameters_per_edit_are_2rd_plus_r(model, name):
    adapter = made(model, formula=name, positions="f1+l1", tied=False)
    edits = 2 * 2  # layers, slots
    assert sum(p.numel() for p in adapter.parameters()) == edits * (2 * RANK * HIDDEN + RANK)


def test_saved_and_loaded_adapter_is_the_same(model, tmp_path):
    adapter = made(model, positions="f2+l1", tied=False)
    save_adapter(tmp_path / "reft.safetensors", adapter, {"method": "reft"})
    loaded, provenance = load_adapter(tmp_path / "reft.safetensors")
    assert provenance == {"method": "reft"} and loaded.config() == adapter.config()
    assert same_tensors(loaded.state(), adapter.state())
    ids, mask = torch.arange(1, 11)[None], torch.ones(1, 10, dtype=torch.bool)
    assert torch.equal(run(model, loaded, ids, mask, mask), run(model, adapter, ids, mask, mask))


def test_retraction_restores_orthonormality_of_loreft_alone(model):
    for name, orthonormal in (("loreft", True), ("noreft", False)):
        adapter = made(model, formula=name)
        with torch.no_grad():
            adapter.rotation.add_(0.3)
        adapter.retract()
        products = adapter.rotation.detach() @ adapter.rotation.detach().mT
        close = torch.allclose(products, torch.eye(RANK).expand_as(products), atol=1e-5)
        assert close == orthonormal


def test_loreft_is_orthonormal_after_a_thousand_steps(model):
    adapter = made(model)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.01)
    ids, mask = torch.arange(1, 6)[None], torch.ones(1, 5, dtype=torch.bool)
    with adapter.attached(model, None) as attachment:
        for _ in range(1000):
            attachment.begin(torch.arange(1), mask)
            states = decoder(model)(input_ids=ids, use_cache=False).last_hidden_state
            optimizer.zero_grad()
            states[:, -1].square().sum().backward()
            optimizer.step()
            adapter.retract()
    products = (adapter.rotation @ adapter.rotation.mT).detach()
    torch.testing.assert_close(products, torch.eye(RANK).expand_as(products), atol=1e-5, rtol=0)


def test_a_trainer_on_one_task_gets_the_edits_themselves(model):
    trained = reft.learner(model, settings(), factors=None, generator=torch.Generator().manual_seed(1))
    same = reft.initial(model, settings(), torch.Generator().manual_seed(1))
    assert same_tensors(trained.state(), same.state()) and trained.config() == same.config()
    assert trained.adapter("reft-sums-0") is trained
