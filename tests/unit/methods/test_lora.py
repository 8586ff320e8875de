"""LoRA: against peft's own model, and leaving no trace."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.core.errors import UserError
from pipeline.methods import lora
from pipeline.model.forward.adapters import load_adapter, save_adapter
from tests.tiny import same_tensors


def tiny(layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture
def model():
    return tiny()


def made(model, dropout: float = 0.0) -> lora.Lora:
    """An adapter whose B is not zero any more."""
    settings = lora.Settings.parse(
        {"rank": 4, "alpha": 8, "dropout": dropout, "modules": ["q_proj", "down_proj"]}, "lora.adapter"
    )
    adapter = lora.initial(model, settings, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, b in adapter.pairs.values():
            b.normal_(0, 0.1, generator=generator)
    return adapter


IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(3))


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_written_out_trained_and_pefts_own_forward_agree(model):
    adapter = made(model)
    base = logits(model)
    with adapter.attached(model, None):
        written = logits(model)
    with adapter.learning(model) as attachment, torch.no_grad():
        attachment.begin(torch.arange(2), None)
        trained = logits(model)
    reference = get_peft_model(tiny(), LoraConfig(r=4, lora_alpha=8, target_modules=adapter.config()["target_modules"]))
    loaded = set_peft_model_state_dict(reference, adapter.state())
    assert not loaded.unexpected_keys
    own = logits(reference)
    assert torch.equal(trained, own)
    torch.testing.assert_close(written, own, atol=1e-5, rtol=1e-5)
    assert (own - base).abs().max() > 0.01


def test_base_is_bit_identical_after_detaching(model):
    adapter = made(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [(name, type(module)) for name, module in model.named_modules()]
    attributes = set(vars(model))
    before = logits(model)
    for block in (adapter.attached(model, None), adapter.learning(model)):
        with block:
            pass
        assert same_tensors(dict(model.state_dict()), weights)
        assert [(name, type(module)) for name, module in model.named_modules()] == modules
        assert set(vars(model)) == attributes
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert torch.equal(logits(model), before)


def test_gradients_reach_the_pairs_and_nothing_else(model):
    adapter = made(model)
    with adapter.learning(model) as attachment:
        attachment.begin(torch.arange(2), None)
        model(input_ids=IDS).logits.square().sum().backward()
        wanting = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())
    assert all("lora_" in name for name in wanting)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_untrained_adapter_leaves_logits_unchanged(model):
    settings = lora.Settings.parse({"rank": 4, "alpha": 8, "dropout": 0.1, "modules": ["q_proj"]}, "lora.adapter")
    adapter = lora.initial(model, settings, torch.Generator().manual_seed(1))
    before = logits(model)
    with adapter.attached(model, None):
        assert torch.equal(logits(model), before)


def test_dropout_drops_where_gradients_are_wanted_and_nowhere_else(model):
    adapter = made(model, dropout=0.5)
    with adapter.learning(model) as attachment:
        attachment.begin(torch.arange(2), None)
        one, other = (model(input_ids=IDS).logits for _ in range(2))
        assert not torch.equal(one, other)
        with torch.no_grad():
            attachment.begin(torch.arange(2), None)
            assert torch.equal(logits(model), logits(model))


def test_pairs_stay_float32_over_a_bfloat16_base(model):
    model = model.to(torch.bfloat16)
    adapter = made(model)
    with adapter.learning(model) as attachment:
        attachment.begin(torch.arange(2), None)
        assert model(input_ids=IDS).logits.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in adapter.state().values()} == {torch.float32}


def test_saved_and_loaded_adapter_is_the_same(model, tmp_path):
    adapter = made(model)
    save_adapter(tmp_path / "lora.safetensors", adapter, {"method": "lora"})
    loaded, _ = load_adapter(tmp_path / "lora.safetensors")
    assert loaded.config() == adapter.config() and same_tensors(loaded.state(), adapter.state())
    with adapter.attached(model, None):
        one = logits(model)
    with loaded.attached(model, None):
        assert torch.equal(logits(model), one)


def test_an_adapter_of_another_base_is_refused_and_leaves_no_trace(model):
    adapter = made(tiny(layers=3))
    before = logits(model)
    with pytest.raises(UserError, match="trained for another base"), adapter.attached(model, None):
        pass
    assert torch.equal(logits(model), before)
