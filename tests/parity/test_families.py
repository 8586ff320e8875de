"""Families of models, tiny and random, against transformers' own forward pass: equal, or refused in one sentence.

Windows are shorter than every prompt. Each family answers greedily and by chance, weighs given texts, gives gradients
through packed rows, serves several prompts at once, and is merged with an expert: all in float32, to 1e-4.
"""

import contextlib
import functools

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pipeline.core.errors import UserError
from pipeline.methods.svf import materialised_weights, single
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.sampling import Sampling
from pipeline.model.decoding.trial import difference, try_model
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.attention import ATTENTION
from pipeline.model.forward.base import Adapted, Base, decoder
from pipeline.model.forward.lm_head import LmHead
from pipeline.model.forward.logprobs import policy_objective
from pipeline.serving.choosing import Options
from pipeline.serving.engine import Engine
from pipeline.serving.jobs import Job
from pipeline.serving.rows import Way
from pipeline.training.layout import Group
from pipeline.training.packing import answer_hidden, packed_batches
from tests.tiny import END, Numbers, tiny_compute, tiny_factors

VOCABULARY, WINDOW = 67, 5
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
SIZES |= {"initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": END}
SIZES |= {"tie_word_embeddings": False}
WINDOWED = {"sliding_window": WINDOW}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FAMILIES = {
    "llama": {},
    "mistral": WINDOWED,
    "ministral": {**WINDOWED, "layer_types": ["sliding_attention", "full_attention"]},
    "mixtral": {**WINDOWED, **EXPERTS},
    "qwen2": {**WINDOWED, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {**WINDOWED, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3_moe": EXPERTS,
    "gemma": {},
    "gemma2": {**WINDOWED, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.5},
    "gemma3_text": {**WINDOWED, "num_hidden_layers": 6, "sliding_window_pattern": 6},
    "phi": {},
    "phi3": WINDOWED,
    "granite": {"logits_scaling": 8.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {**WINDOWED, "logit_scale": 0.25, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": {},
    "olmo3": {**WINDOWED, "layer_types": ["sliding_attention", "full_attention"]},
    "smollm3": {**WINDOWED, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {},
    "gpt_oss": {**WINDOWED, **EXPERTS},
    "starcoder2": WINDOWED,
    "stablelm": {},
    "exaone4": {**WINDOWED, "layer_types": ["sliding_attention", "full_attention"]},
    "olmoe": EXPERTS,
    "nemotron": {},
    "glm4": {},
}
REFUSED = {
    "gpt2": {},  # its layers have another name, and its matrices are no linear modules
    "bloom": {},  # ALiBi
    "mamba": {},
    "llama4_text": {"attention_chunk_size": WINDOW, **EXPERTS},  # attends within chunks
    "recurrent_gemma": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {},
}


def built(family, **others):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**SIZES, **(FAMILIES | REFUSED)[family], **others})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    for name, parameter in model.named_parameters():  # biases and sinks begin at zero: they must matter
        if parameter.ndim == 1 and ("bias" in name or "sinks" in name):
            parameter.normal_(0, 0.3)
    return model


@functools.cache
def reference(family):
    return built(family)


@functools.cache
def adapted(family):
    model = built(family)
    model.set_attn_implementation(ATTENTION)
    base = Base(model, Numbers(), frozenset([END]))
    return Adapted(base, tiny_compute(batch_tokens=120, cache_tokens=150))


def logprobs(family, prompt, answer, temperature=1.0):
    """The log-probability of each token of an answer, by transformers."""
    model = reference(family)
    logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1).gather(1, torch.tensor([*answer])[:, None]).squeeze(1)


def drawn(*lengths, seed=0):
    """Texts; all share their first six tokens."""
    draw = torch.Generator().manual_seed(seed)
    texts = [torch.randint(3, VOCABULARY, (length,), generator=draw).tolist() for length in lengths]
    return [[*texts[0][:6], *text[6:]] for text in texts]


PROMPTS = drawn(17, 11, 14, 12)


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers(family):
    for prompt, (answer,) in zip(PROMPTS, generate(adapted(family), PROMPTS, max_new_tokens=9), strict=True):
        given = reference(family).generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=9
        )
        assert list(answer.ids) == given[0, len(prompt) :].tolist()
        close(answer.logprobs, logprobs(family, prompt, answer.ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_answers_have_the_log_probabilities_of_transformers(family):
    sampling = Sampling(generator=torch.Generator().manual_seed(1), samples=3, temperature=0.8)
    answers = generate(adapted(family), PROMPTS, max_new_tokens=8, sampling=sampling)
    for prompt, several in zip(PROMPTS, answers, strict=True):
        for answer in several:
            close(answer.logprobs, logprobs(family, prompt, answer.ids, temperature=0.8))


@pytest.mark.parametrize("family", FAMILIES)
def test_given_texts_weigh_as_by_transformers(family):
    given = [[ids[:7], ids[:3], ids[2:8]] for ids in drawn(9, 9, 9, 9, seed=2)]
    weights = weigh(adapted(family), PROMPTS, given)
    expected = [
        [float(logprobs(family, prompt, ids).sum()) for ids in several]
        for prompt, several in zip(PROMPTS, given, strict=True)
    ]
    close(weights, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gradients_are_those_of_transformers(family):
    """Of the token embeddings: all of the model stands between them and the loss."""
    answers = [[ids[:8], [*ids[:5], *ids[1:6]], ids[4:7]] for ids in drawn(9, 9, 9, 9, seed=3)]
    weights = torch.linspace(-1, 1, VOCABULARY)  # of a token in the loss
    base = adapted(family).base
    groups = [Group(prompt, several) for prompt, several in zip(PROMPTS, answers, strict=True)]
    with differentiable(base.model) as found:
        for _, packed in packed_batches(groups, Attachment(), batch_tokens=70, device=base.device):
            hidden = answer_hidden(decoder(base.model), packed, Attachment())
            advantage = weights[packed.target]
            policy_objective(hidden, base.lm_head, packed.target, packed.state, advantage=advantage).loss.backward()
    with differentiable(reference(family)) as expected:
        for prompt, several in zip(PROMPTS, answers, strict=True):
            for ids in several:
                (-weights[torch.tensor(ids)] * logprobs(family, prompt, ids)).sum().backward()
    assert expected[0].abs().max() > 1e-3
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)


@contextlib.contextmanager
def differentiable(model):
    """Yields a list that holds the gradient of the token embeddings after the block."""
    table, gradient = model.get_input_embeddings().weight.requires_grad_(True), []
    yield gradient
    gradient.append(table.grad.clone())
    table.grad = None
    table.requires_grad_(False)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_server_writes_what_transformers_does(family):
    """Three rows for four prompts: one joins when another leaves."""
    base, compute = adapted(family).base, adapted(family).compute
    engine = Engine(base, None, compute.model_copy(update={"cache_tokens": 500}), rows=3)
    jobs = [
        Job(({"role": "user", "content": ""},), Way("base"), options(7 + place), lambda _: None, prompt=prompt)
        for place, prompt in enumerate(PROMPTS)
    ]
    engine.finish(jobs)
    for job, answer in zip(jobs, generate(adapted(family), PROMPTS, max_new_tokens=10), strict=True):
        assert job.ids == list(answer[0].ids)[: job.options.max_new_tokens]


def options(tokens):
    return Options(max_new_tokens=tokens, stop=(), temperature=0.0, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_checkpoint_is_the_model_with_its_expert(family, tmp_path):
    model = built(family)
    model.set_attn_implementation(ATTENTION)
    kinds = sorted(
        {name.rpartition(".")[2] for name, part in decoder(model).named_modules() if type(part) is nn.Linear}
    )
    factors = tiny_factors(model, tmp_path, kinds)
    draw = torch.Generator().manual_seed(4)
    z = {name: 1 + 0.3 * torch.randn(len(factors[name][1]), generator=draw) for name in factors.modules}
    base = Base(model, Numbers(), frozenset([END]))
    with single(z, "expert").attached(model, factors) as attachment:
        answers = generate(Adapted(base, tiny_compute(), attachment), PROMPTS[:2], max_new_tokens=6)
    with materialised_weights(model, factors, z):
        model.save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    for prompt, (answer,) in zip(PROMPTS, answers, strict=False):
        ids = torch.tensor([[*prompt, *answer.ids]])
        with torch.no_grad():
            logits = merged(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        close(answer.logprobs, logits.log_softmax(-1).gather(1, torch.tensor(answer.ids)[:, None]).squeeze(1))


# ---- the trial that every model goes through when it is downloaded ---------------------------------------------------


def saved(family, folder, **others):
    built(family, **others).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trial_lets_these_pass(family, tmp_path):
    """With windows as long as they are in practice: the trial makes them short."""
    assert (
        difference(saved(family, tmp_path, **({"sliding_window": 64} if "sliding_window" in FAMILIES[family] else {})))
        < 1e-4
    )


@pytest.mark.parametrize("family", REFUSED)
def test_the_trial_refuses_others_in_one_sentence(family, tmp_path):
    with pytest.raises(UserError, match=r"^expected [^\n]*; choose another$"):
        try_model(saved(family, tmp_path), "choose another")


@pytest.mark.parametrize(
    ("family", "unknown"),
    [("granite", "pipeline.model.forward.base.lm_head_of"), ("mistral", "pipeline.model.decoding.cache.window_of")],
)
def test_the_trial_notices_what_is_not_known(family, unknown, tmp_path, monkeypatch):
    monkeypatch.setattr(unknown, {"lm_head_of": lambda model: LmHead(model.lm_head)}.get(unknown[-10:], lambda _: None))
    with pytest.raises(UserError, match="the same log-probabilities from transformers and from this project"):
        try_model(saved(family, tmp_path), "choose another")
