"""The trial of a model: what this project computes with it is what transformers computes, or it is refused.

Families of models differ in more than their shapes: in what each layer may look at, in what is done to scores and
logits, in what they keep of the past. Whatever is not known here would give wrong numbers in silence. So a model's own
weights are tried once, when it is downloaded: as few of its layers as hold one of each kind, with windows and chunks
shorter than the text, answer and weigh a text by our passes and by transformers' own, in float32 on the CPU. A model
with eyes answers about a picture, too: families differ in what the tokens of a picture may look at.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from pipeline.core.errors import UserError
from pipeline.core.reading import foreign
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.attention import ATTENTION
from pipeline.model.forward.base import Adapted, Base, Compute, decoder_layers
from pipeline.model.forward.eyes import language_part, seeing
from pipeline.pictures.files import png, url

SHORT, LONG, NEW = 5, 14, 6  # tokens of a window, of a prompt, of its answer
TOLERANCE = 1e-3  # nats, of the sum over an answer
COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=256, cache_tokens=1024)
WINDOWS = ("sliding_window", "attention_chunk_size")


def try_model(folder: Path, remedy: str) -> None:
    """UserError where our passes over the model in ``folder`` give other numbers than transformers'."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would list the layers that are left out
    transformers_logging.disable_progress_bar()
    try:
        with foreign(folder, "a causal language model that this project can compute", remedy):
            differs = difference(folder)
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not differs <= TOLERANCE:
        raise UserError(
            f"expected the same log-probabilities from transformers and from this project for the model in {folder}, "
            f"got {differs:.2g} nats between them: its family computes something that is not known here; {remedy}"
        )


def difference(folder: Path) -> float:
    """The largest difference (nats) between log-likelihoods of some texts, ours and transformers'."""
    config = AutoConfig.from_pretrained(folder)
    _shorten(config.get_text_config())
    sees = hasattr(config, "vision_config")
    kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    whole = kind.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", use_safetensors=True
    )
    whole = whole.eval().requires_grad_(False)
    model = language_part(whole) if sees else whole
    decoder_layers(model)  # which edits of hidden states, and scales by layer, ask for
    vocabulary = model.get_input_embeddings().num_embeddings
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, vocabulary, (2, LONG + NEW), generator=draw).tolist()
    drawn[1][: LONG // 2] = drawn[0][: LONG // 2]  # the prompts share a prefix
    prompts, given = [drawn[0][:LONG], drawn[1][: LONG - 3]], [ids[LONG:] for ids in drawn]
    model.set_attn_implementation(ATTENTION)
    adapted = Adapted(Base(model, None, frozenset()), COMPUTE)
    answers = [of_one[0] for of_one in generate(adapted, prompts, max_new_tokens=NEW)]
    weighed = weigh(adapted, prompts, [[ids, ids[:2]] for ids in given])
    model.set_attn_implementation("eager")
    differs = [0.0]
    for prompt, answer, ids, weights in zip(prompts, answers, given, weighed, strict=True):
        own = _logprobs(model, prompt, answer.ids)
        differs += (own - torch.tensor(answer.logprobs)).abs().tolist()
        own = _logprobs(model, prompt, ids)
        differs += [abs(float(own.sum()) - weights[0]), abs(float(own[:2].sum()) - weights[1])]
    if sees:
        differs += _of_a_picture(whole, AutoProcessor.from_pretrained(folder, backend="pil"))
    return max(differs, key=lambda value: (value != value, value))  # NaN above all


def _shorten(config: Any) -> None:
    """Leave as few layers as hold one of each kind, and windows that end within the texts."""
    kinds: list[str] = list(getattr(config, "layer_types", None) or [])
    few = 1 + max(map(kinds.index, set(kinds))) if kinds else min(2, int(config.num_hidden_layers))
    if kinds:
        config.layer_types = kinds[:few]
    config.num_hidden_layers = few
    for name in WINDOWS:
        if getattr(config, name, None):
            setattr(config, name, min(getattr(config, name), SHORT))


@torch.no_grad()
def _of_a_picture(whole: PreTrainedModel, processor: Any) -> list[float]:
    """The differences (nats) between log-probabilities of an answer about a picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    base = seeing(whole, processor)
    prompt = base.prompt_ids([{"role": "user", "content": "Who?", "images": [url(png(noise))]}])
    ((answer,),) = generate(Adapted(base, COMPUTE), [prompt], max_new_tokens=NEW)
    whole.set_attn_implementation("eager")
    token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    ids = [token if one >= base.eyes.vocabulary else one for one in (*prompt, *answer.ids)]
    read = processor(text=[processor.image_token], images=[[Image.fromarray(noise)]], return_tensors="pt")
    pixels = {name: value for name, value in read.items() if name not in ("input_ids", "attention_mask")}
    logits = whole(input_ids=torch.tensor([ids]), use_cache=False, **pixels).logits[0, len(prompt) - 1 : -1]
    own = logits.float().log_softmax(-1).gather(1, torch.tensor(answer.ids)[:, None]).squeeze(1)
    return (own - torch.tensor(answer.logprobs)).abs().tolist()


@torch.no_grad()
def _logprobs(model: PreTrainedModel, prompt: list[int], answer: list[int] | tuple[int, ...]) -> Tensor:
    """The log-probabilities of an answer's tokens, as transformers computes them."""
    logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).squeeze(1)
