"""Load a base model; render a chat; find decoder layers; fix what could differ between runs."""

import contextlib
import ctypes
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from pipeline.core.config import SHARE, Section
from pipeline.core.errors import UserError
from pipeline.core.model_folder import check_layers, check_template
from pipeline.core.reading import foreign
from pipeline.core.types import PLAIN
from pipeline.model.forward import tower  # noqa: F401 - a folder may name it
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.attention import ATTENTION
from pipeline.model.forward.lm_head import LmHead, lm_head_of
from pipeline.model.forward.spread import spread

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Compute(Section, at="compute"):
    """What the run computes on.

    device: ``cpu`` or ``cuda``. dtype: of the frozen base, ``bfloat16`` or ``float32``.
    threads: CPU threads of a stage that has the machine to itself; beside others it gets its share of the cores
        (``SHARE``). It is a setting because another number may round sums differently: most artifacts had the same
        bytes with one thread and with two, LoReFT's and CS-ReFT's had not.
    batch_tokens: tokens (padding included) in one forward pass of training or prefill; bounds the memory.
    cache_tokens: tokens held by the key-value cache of one decoding batch; bounds the memory.
    gpus: how many GPUs the layers of one model are spread over (``pipeline.model.forward.spread``), for models larger
        than one. A setting, because another GPU may round otherwise.
    gpu_memory: GiB of one GPU, which ``selfadapt profile check`` holds the plan to; nothing else reads it.
    units: parts of a training step, and of the prompts that are answered, that are computed apart, so that several
        processes may share them (``pipeline.core.processes``). It is a setting because sums of other parts round
        differently, and each part draws by a generator of its own; how many processes there are changes nothing.
    """

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    threads: int = Field(ge=1)
    batch_tokens: int = Field(ge=1)
    cache_tokens: int = Field(ge=1)
    gpus: int = Field(default=1, ge=1)
    gpu_memory: float | None = Field(default=None, gt=0)
    units: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Base:
    """A frozen base model with its tokenizer, in evaluation mode, without gradients of its own."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def lm_head(self) -> LmHead:
        return lm_head_of(self.model)

    @property
    def whole(self) -> PreTrainedModel:
        """The model as its folder has it: of one that sees, ``model`` is the language part alone."""
        return self.model

    def save(self, folder: Path) -> None:
        """Write it as transformers loads it."""
        self.whole.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The token ids of a chat up to where the answer begins, or of bare text (role ``plain``)."""
        if any(message.get("images") for message in messages):
            raise UserError(
                "expected a model with eyes for a prompt with a picture, got one without; name another base model, or "
                "ask without a picture"
            )
        if messages[0]["role"] == PLAIN:
            return list(self.tokenizer(messages[0]["content"])["input_ids"])
        chat = [dict(message) for message in messages]
        if chat[0]["role"] == "system" and len(chat) > 1 and not self._takes_system:
            chat[:2] = [{**chat[1], "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}]
        with foreign("a chat", "turns that this model's chat template takes", "change their roles"):
            return list(self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template has a place for a system turn. Gemma's has none: the user says it there."""
        chat = [{"role": "system", "content": "S1S"}, {"role": "user", "content": "U2U"}]
        try:
            return "S1S" in self.tokenizer.apply_chat_template(chat, tokenize=False)
        except Exception:  # a template raises what it likes
            return False

    def answer_ids(self, text: str) -> list[int]:
        """The token ids of a reference answer, with the end-of-sequence token a chat answer ends with."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


@dataclass(frozen=True)
class Adapted:
    """A base model as it is used: on what, and with which adapter.

    compute: its ``batch_tokens`` and ``cache_tokens`` bound a pass and the cache of a batch, padding included.
    attachment: of the adapter that is attached to the model (default: none is).
    """

    base: Base
    compute: Compute
    attachment: Attachment = field(default_factory=Attachment)


def prepare_process(compute: Compute, seed: int = 0) -> None:
    """Fix threads, determinism and the seeds of global generators; have freed memory kept."""
    _check_device(compute)
    _keep_freed_memory()
    torch.set_num_threads(_threads(compute))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads memory before writing it
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _check_device(compute: Compute) -> None:
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, but torch sees none; set compute.device to cpu in params.yaml")
    if compute.device == "cpu" and compute.gpus > 1:
        raise UserError("params.yaml: expected compute.device cuda with compute.gpus above 1, got cpu; correct either")
    if compute.gpus > 1 and torch.cuda.device_count() < compute.gpus:
        raise UserError(
            f"expected {compute.gpus} GPUs (compute.gpus), but torch sees {torch.cuda.device_count()}; set it lower in "
            "params.yaml, or show the stage more (CUDA_VISIBLE_DEVICES)"
        )


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor, instead of giving it back to the system.

    By default it gives back blocks of megabytes. Every intermediate result is then memory that the system hands out and
    clears anew, page by page, which takes a quarter of the CPU time of answering prompts.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes
        mallopt(trim_threshold, (1 << 31) - 1)


def _threads(compute: Compute) -> int:
    """The threads of the settings, and no more than the share that the environment gives."""
    share = os.environ.get(SHARE, str(compute.threads))
    if not share.isdecimal() or int(share) < 1:
        raise UserError(f"expected {SHARE} to be a number of threads from 1 on, got '{share}'; correct or unset it")
    return min(compute.threads, int(share))


def load_base(folder: Path, compute: Compute) -> Base:
    """A base model from a folder that a stage wrote; one with eyes, where the folder's model has them."""
    _check_device(compute)
    if not (folder / "config.json").is_file():
        raise UserError(f"expected a model folder in {folder}, which has no config.json; run 'dvc repro download'")
    transformers_logging.disable_progress_bar()  # a bar of its own, even where there is no terminal
    remedy = "remove the folder and run 'dvc repro' again"
    if check_layers(folder, remedy):
        from pipeline.model.forward.eyes import load_seeing  # it stands on this file

        return load_seeing(folder, compute, remedy)
    with foreign(folder, "a whole model", remedy):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[compute.dtype], attn_implementation=ATTENTION, use_safetensors=True
        )
    check_template(tokenizer, folder, remedy)
    model = placed(model, compute).eval().requires_grad_(False)
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    return Base(model, tokenizer, frozenset([tokenizer.eos_token_id, *ends]))


def placed(model: PreTrainedModel, compute: Compute) -> PreTrainedModel:
    """The model on its device, or with its decoder layers spread over several."""
    if compute.gpus == 1:
        return model.to(compute.device)
    spread(model, decoder(model), [torch.device("cuda", number) for number in range(compute.gpus)])
    return model


def decoder(model: nn.Module) -> nn.Module:
    """The stack of decoder layers: embeddings in, final hidden states out, no language-model head."""
    return model.get_decoder()


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder's layers, in depth order, of any Llama-, Qwen-, Gemma- or Mistral-type model."""
    return decoder(model).layers


def linear_modules(model: nn.Module, suffixes: Sequence[str]) -> list[str]:
    """Names of the decoder's linear modules whose last name part is in ``suffixes``, in model order."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in suffixes
    ]
    missing = set(suffixes) - {name.rpartition(".")[2] for name in names}
    if missing:
        known = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise UserError(
            f"expected modules of the model in params.yaml, but the model has no linear module "
            f"{', '.join(sorted(missing))}; it has: {', '.join(known)}"
        )
    return names


def layer_of(module_name: str) -> int:
    """The decoder layer a module belongs to: ``model.layers.7.mlp.up_proj`` is in layer 7."""
    parts = module_name.split(".")
    return int(parts[parts.index("layers") + 1])
