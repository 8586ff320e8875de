"""DoRA, (IA)³ and TinyLoRA: against peft's own models, leaving no trace, and trained by both objectives."""

from types import SimpleNamespace

import peft
import pytest
import torch
from peft import get_peft_model, set_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.methods import dora, ia3, lora, svf, tinylora
from pipeline.methods.common.peft import inserted
from pipeline.model.forward.adapters import load_adapter, save_adapter
from pipeline.training import reinforce, supervised
from pipeline.training.loop import Data, Training
from pipeline.training.rollouts import written
from tests.tiny import OPTIMISATION, REINFORCE, same_tensors, tiny_base, tiny_compute, tiny_factors

LOW_RANK = {"rank": 4, "alpha": 8, "dropout": 0.0, "modules": ["q_proj", "down_proj"]}
SETTINGS = {
    "lora": (lora, LOW_RANK),
    "dora": (dora, LOW_RANK),
    "ia3": (ia3, {"modules": ["k_proj", "v_proj", "down_proj"], "feedforward": ["down_proj"]}),
    "tinylora": (tinylora, {"rank": 3, "size": 5, "tying": 0.5, "modules": ["q_proj", "down_proj"]}),
}
NEW = ["dora", "ia3", "tinylora"]
IDS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(3))


def model_of(*, bias: bool = False, layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        attention_bias=bias,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(4))
    return model


def untrained(kind: str, model: LlamaForCausalLM):
    module, settings = SETTINGS[kind]
    parsed = module.Settings.parse(settings, f"{kind}.adapter")
    return module.learner(model, parsed, factors=None, generator=torch.Generator().manual_seed(1))


def shaken(kind: str, model: LlamaForCausalLM):
    """An adapter that is not the base any more."""
    adapter = untrained(kind, model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return adapter


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def config_of(kind: str, adapter) -> peft.PeftConfig:
    """peft's configuration as a user of peft would write it."""
    words = adapter.config()
    words.pop("groups", None)
    kinds = {"LORA": peft.LoraConfig, "IA3": peft.IA3Config, "TINYLORA": peft.TinyLoraConfig}
    return kinds[words.pop("peft_type")](**words)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", NEW)
def test_written_out_trained_and_pefts_own_forward_agree(kind: str, bias: bool) -> None:
    model = model_of(bias=bias)
    adapter = shaken(kind, model)
    base = logits(model)
    with adapter.attached(model, None):
        written = logits(model)
    with adapter.learning(model) as attachment, torch.no_grad():
        attachment.begin(torch.arange(2), None)
        trained = logits(model)
    reference = get_peft_model(model_of(bias=bias), config_of(kind, adapter))
    assert not set_peft_model_state_dict(reference, adapter.state()).unexpected_keys
    own = logits(reference)
    torch.testing.assert_close(trained, own, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(written, own, atol=2e-5, rtol=2e-5)
    assert (own - base).abs().max() > 0.01


@pytest.mark.parametrize("kind", NEW)
def test_base_is_bit_identical_after_detaching(kind: str) -> None:
    model = model_of(bias=True)
    adapter = shaken(kind, model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [(name, type(module), module.training) for name, module in model.named_modules()]
    attributes = set(vars(model))
    for block in (adapter.attached(model, None), adapter.learning(model), adapter.learning(model)):
        with block:
            pass
        assert same_tensors(dict(model.state_dict()), weights)
        assert [(name, type(module), module.training) for name, module in model.named_modules()] == modules
        assert set(vars(model)) == attributes
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", NEW)
def test_an_untrained_adapter_leaves_logits_unchanged(kind: str) -> None:
    model = model_of()
    adapter, before = untrained(kind, model), logits(model)
    with adapter.attached(model, None):
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("kind", NEW)
def test_saved_and_loaded_adapter_is_the_same_and_trained_in_float32(kind: str, tmp_path) -> None:
    model = model_of().to(torch.bfloat16)
    adapter = shaken(kind, model)
    save_adapter(tmp_path / "adapter.safetensors", adapter, {"method": kind})
    loaded, _ = load_adapter(tmp_path / "adapter.safetensors")
    assert loaded.kind == kind and loaded.config() == adapter.config()
    assert same_tensors(loaded.state(), adapter.state())
    assert {tensor.dtype for tensor in loaded.state().values()} == {torch.float32}
    with adapter.attached(model, None):
        written = logits(model)
    with loaded.attached(model, None):
        assert torch.equal(logits(model), written)
    with loaded.learning(model) as attachment:
        attachment.begin(torch.arange(2), None)
        assert model(input_ids=IDS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", NEW)
def test_an_adapter_of_another_base_is_refused(kind: str) -> None:
    adapter, model = untrained(kind, model_of(layers=3)), model_of()
    before = logits(model)
    for block in (adapter.attached(model, None), adapter.learning(model)):
        with pytest.raises(UserError, match="trained for another base"), block:
            pass
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(("modules", "tying"), [(7, 0.0), (7, 0.5), (7, 1.0), (4, 0.3)])
def test_vectors_are_shared_as_in_peft(modules: int, tying: float) -> None:
    model = model_of()
    names = [f"model.layers.{n // 4}.self_attn.{'qkvo'[n % 4]}_proj" for n in range(modules)]
    settings = peft.TinyLoraConfig(r=1, u=1, weight_tying=tying, target_modules=names)
    layers = inserted(model, settings, names)
    assert [int(layer._tinylora_v_key["default"]) for layer in layers.values()] == tinylora.groups(modules, tying)


def test_what_takes_must_stand_among_the_modules() -> None:
    settings = ia3.Settings.parse({"modules": ["k_proj"], "feedforward": ["down_proj"]}, "ia3.adapter")
    with pytest.raises(UserError, match="'down_proj' does not; add it there"):
        ia3.initial(model_of(), settings, torch.Generator())


# ---- both objectives -------------------------------------------------------------------------------------------------

EXAMPLES = [Example(str(n), ({"role": "user", "content": "abcd"[n % 4]},), "xyzw"[n % 4], {}) for n in range(8)]


def learner_of(kind: str, base: SimpleNamespace, folder):
    if kind != "svf":
        return untrained(kind, base.model)
    scaled = {"modules": ["q_proj", "down_proj"], "parametrisation": "direct", "init_mean": 0.0, "init_std": 0.0}
    settings = svf.Settings.parse(scaled, "svf")
    factors = tiny_factors(base.model, folder)
    return svf.learner(base.model, settings, factors=factors, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [*NEW, "lora", "svf"])
def test_every_method_learns_from_reference_answers(kind: str, tmp_path) -> None:
    base = tiny_base()
    learner = learner_of(kind, base, tmp_path)
    values = {**OPTIMISATION, "steps": 10, "learning_rate": 0.03, "validate_every": 5, "checkpoint_every": 100}
    curve = supervised.train(
        base,
        learner,
        Data(EXAMPLES, EXAMPLES),
        compute=tiny_compute(batch_tokens=1000),
        training=Training(supervised.Answering.parse(values, "training"), 0, Checkpoints(tmp_path / "checkpoints")),
    )
    assert min(row["validation"] for row in curve[1:] if row["validation"]) < 0.95 * curve[0]["validation"]


@pytest.mark.parametrize("kind", [*NEW, "lora", "svf"])
def test_every_method_learns_from_rewards(kind: str, tmp_path) -> None:
    """Rewarded: an answer that begins with a token of the lower half of the vocabulary."""
    base = tiny_base()
    compute = tiny_compute(512, 4096)
    values = {**REINFORCE, "samples": 8, "learning_rate": 0.03, "schedule": "constant", "validate_every": 6}
    settings = reinforce.Reinforce.parse({**values, "kl_coefficients": [0.0]}, "reinforce")

    def reward(examples, answers) -> list[float]:
        return [1.0 if answer.ids[0] < 30 else -1.0 for answer in answers]

    draw = written(base, compute=compute, max_new_tokens=1, samples=8, temperature=1.0)
    _, curve = reinforce.train(
        base,
        lambda: learner_of(kind, base, tmp_path),
        reinforce.Questions(EXAMPLES, EXAMPLES[:4], draw, reward),
        compute=compute,
        training=Training(settings, 0, Checkpoints(tmp_path / "checkpoints")),
    )
    rewards = [row["train"] for row in curve[1:]]
    assert rewards[-1] > rewards[0] + 0.2
    assert {row["objective"] for row in curve} == {"reinforce"}
