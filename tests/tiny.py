"""A random two-layer Llama with a stand-in tokenizer of letters: what the tests attach things to."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.core.artifacts import write_tensors
from pipeline.methods.svf import decompose
from pipeline.model.forward.adapters import Factors
from pipeline.model.forward.attention import ATTENTION
from pipeline.model.forward.base import Compute, linear_modules
from pipeline.model.forward.lm_head import lm_head_of

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
END = 2
# Settings of a training, for a test to change.
OPTIMISATION = {"steps": 6, "batch": 4, "learning_rate": 0.02, "weight_decay": 0.0, "schedule": "cosine", "warmup": 0.0}
OPTIMISATION |= {"clip": 1.0, "validate_every": 2, "validation_examples": 4, "patience": 9, "checkpoint_every": 1}
REINFORCE = {**OPTIMISATION, "samples": 4, "temperature": 1.0, "advantage": "rloo"}
REINFORCE |= {"kl_coefficients": [0.1], "kl_estimator": "full"}


class Numbers:
    """A tokenizer that writes ids as they are."""

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(map(str, ids))


def tiny_model(layers: int = 2, vocab: int = 61, **shape: int) -> LlamaForCausalLM:
    """shape: sizes of LlamaConfig that are to be others."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=vocab,
        num_hidden_layers=layers,
        attn_implementation=ATTENTION,
        initializer_range=0.2,  # large enough for logits to differ: greedy choices are then no ties
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
        **{**sizes, **shape},
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def tiny_base(layers: int = 2, vocab: int = 61, **shape: int) -> SimpleNamespace:
    model = tiny_model(layers, vocab, **shape)
    return SimpleNamespace(
        model=model,
        device=torch.device("cpu"),
        lm_head=lm_head_of(model),
        end_ids=frozenset([END]),
        prompt_ids=lambda messages: [1, *(3 + ord(letter) % (vocab - 3) for letter in messages[-1]["content"])],
        answer_ids=lambda text: [*(3 + ord(letter) % (vocab - 3) for letter in text), END],
        text=lambda ids: " ".join(str(id_) for id_ in ids),
    )


def tiny_compute(batch_tokens: int = 10_000, cache_tokens: int = 10_000) -> Compute:
    return Compute(device="cpu", dtype="float32", threads=1, batch_tokens=batch_tokens, cache_tokens=cache_tokens)


def tiny_factors(model: LlamaForCausalLM, folder, modules: Sequence[str] = MODULES) -> Factors:
    tensors = {}
    for name in linear_modules(model, modules):
        u, sigma, vt = decompose(model.get_submodule(name).weight)
        tensors |= {f"{name}.u": u, f"{name}.sigma": sigma, f"{name}.vt": vt}
    write_tensors(folder / "factors.safetensors", tensors, {})
    return Factors(folder / "factors.safetensors")


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
