"""A model that sees: the language part as a model of its own, and the eyes that make tokens of pictures beside it.

Prompts stay sequences of ids. A picture's tokens have ids from the size of the vocabulary on, which only the embedding
resolves: it looks them up in a table of features, as the vision part computes them. A picture that is given again has
its old ids, and equal ids are equal embeddings. So whatever sorts, shares, packs and caches prompts by their ids holds
for prompts with pictures unchanged, and no text can spell a picture.

The language part (``Base.model``) is the causal model that the decoder and the head are without eyes. Its modules have
the names that they have in a model of text, so an expert of the one fits the other.
"""

import hashlib
import inspect
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import LongTensor, Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from pipeline.core.errors import UserError
from pipeline.core.reading import foreign
from pipeline.model.forward.attention import ATTENTION
from pipeline.model.forward.base import DTYPES, Base, Compute, placed
from pipeline.pictures.files import opened, stored

FEATURES = 512 << 20  # bytes of features that are kept; what is asked for again is computed again
SOURCES = 256 << 20  # bytes of pictures that came with a request
TOGETHER = 64  # pictures in one pass of the vision part
JOINER = "\u2060"  # a word joiner: what a text that spells a picture's token is broken by


@dataclass(frozen=True)
class Seen:
    """A picture that was given.

    source: its path, or a data URL; empty once it was let go of. first: the id of the first of its ``count`` tokens.
    ids: what stands for it in a prompt, its tokens and those that the model's processor puts around them.
    """

    source: str
    first: int
    count: int
    ids: tuple[int, ...]


class Eyes:
    """The vision part of a model. model: the whole one. processor: its own, of transformers."""

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.weight: Tensor = model.get_input_embeddings().weight
        self.vocabulary = self.weight.shape[0]
        self._seen: dict[str, Seen] = {}  # by the hash of their bytes
        self._order: list[str] = []
        self._firsts: list[int] = []
        self._features: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0  # bytes of the sources that are no files
        self._lock = threading.RLock()  # a server reads prompts in other threads than it answers in

    @property
    def token(self) -> str:
        """What stands for a picture in the model's own prompts."""
        return self.processor.image_token

    @cached_property
    def _token_id(self) -> int:
        return int(self.processor.tokenizer.convert_tokens_to_ids(self.token))

    def look(self, picture: str) -> Seen:
        """A picture's tokens. Raises UserError where it cannot be read."""
        data = stored(picture)
        key = hashlib.sha256(data).hexdigest()
        with self._lock:
            return self._known(key, data, picture)

    def _known(self, key: str, data: bytes, picture: str) -> Seen:
        if key not in self._seen:
            ids = self._read(data, picture)["input_ids"][0].tolist()
            first = self.vocabulary if not self._order else self._firsts[-1] + self._seen[self._order[-1]].count
            count = ids.count(self._token_id)
            numbers = iter(range(first, first + count))
            placed = tuple(next(numbers) if one == self._token_id else one for one in ids)
            self._seen[key] = Seen("", first, count, placed)
            self._order.append(key)
            self._firsts.append(first)
        if not self._seen[key].source:  # new, or let go of since
            self._seen[key] = replace(self._seen[key], source=picture)
            self._held += len(picture) if picture.startswith("data:") else 0
            self._forget(key)
        return self._seen[key]

    def _forget(self, newest: str) -> None:
        """Let go of the oldest pictures that came with requests, once they are too many; the newest one stays."""
        for key in self._order:
            if self._held <= SOURCES:
                return
            old = self._seen[key]
            if key != newest and old.source.startswith("data:"):
                self._held -= len(old.source)
                self._seen[key] = replace(old, source="")

    def _read(self, data: bytes, picture: str) -> Mapping[str, Tensor]:
        """What the processor makes of a picture alone."""
        seen = opened(data, "the data URL" if picture.startswith("data:") else picture)
        with foreign("a picture", "one that this model's processor takes", "give another"):
            return self.processor(text=[self.token], images=[[seen]], return_tensors="pt", add_special_tokens=False)

    # ---- the embedding -----------------------------------------------------------------------------------------------

    def embed(self, ids: LongTensor) -> Tensor:
        """In place of the embedding's forward: (…,) to (…, hidden)."""
        beyond = ids >= self.vocabulary
        if not bool(beyond.any()):
            return nn.functional.embedding(ids, self.weight)
        embedded = nn.functional.embedding(ids.masked_fill(beyond, 0), self.weight)
        wanted = ids[beyond]
        places = sorted({bisect_right(self._firsts, one) - 1 for one in wanted.unique().tolist()})
        keys = [self._order[place] for place in places]
        with self._lock:
            features = self._of(keys)
        table = torch.cat([features[key] for key in keys])
        starts = torch.tensor([self._firsts[place] for place in places], device=ids.device)
        sizes = torch.tensor([self._seen[key].count for key in keys], device=ids.device)
        row = torch.searchsorted(starts, wanted, right=True) - 1
        embedded[beyond] = table[(sizes.cumsum(0) - sizes)[row] + wanted - starts[row]]
        return embedded

    def _of(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """The features of some pictures, each (count, hidden): those that are kept, and others computed now."""
        found = {key: self._features[key] for key in keys if key in self._features}
        missing = [key for key in keys if key not in found]
        for start in range(0, len(missing), TOGETHER):
            part = missing[start : start + TOGETHER]
            found |= dict(zip(part, self._computed(part), strict=True))
        for key in keys:
            self._features[key] = found[key]
            self._features.move_to_end(key)
        size = sum(one.numel() * one.element_size() for one in self._features.values())
        while size > FEATURES and len(self._features) > len(keys):
            _, gone = self._features.popitem(last=False)
            size -= gone.numel() * gone.element_size()
        return found

    @torch.no_grad()
    def _computed(self, keys: Sequence[str]) -> list[Tensor]:
        taken = inspect.signature(self.model.get_image_features).parameters
        inputs = []
        for key in keys:
            source = self._seen[key].source
            if not source:
                raise UserError("expected a picture that was sent a short while ago, got one too old; send it again")
            read = self._read(stored(source), source)
            kept = {name: value.to(self.weight.device) for name, value in read.items() if name in taken}
            inputs.append({**kept, "pixel_values": kept["pixel_values"].to(self.weight.dtype)})
        alike = {(*one, *(value.shape for value in one.values())) for one in inputs}
        if len(alike) == 1 and set(inputs[0]) == {"pixel_values"} and inputs[0]["pixel_values"].dim() == 4:
            pixels = torch.cat([one["pixel_values"] for one in inputs])
            return list(self._features_of({"pixel_values": pixels}).reshape(len(keys), -1, self.weight.shape[1]))
        return [self._features_of(one) for one in inputs]

    def _features_of(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(tokens, hidden) of the pictures of one call."""
        found = self.model.get_image_features(**inputs).pooler_output
        whole = torch.cat(list(found)) if isinstance(found, list | tuple) else found
        return whole.reshape(-1, self.weight.shape[1]).to(self.weight)


@dataclass(frozen=True)
class Seeing(Base):
    """A base model with eyes. A message may have ``images``, paths or data URLs, which stand before its text."""

    eyes: Eyes

    @property
    def whole(self) -> PreTrainedModel:
        return self.eyes.model

    def save(self, folder: Path) -> None:
        self.whole.save_pretrained(folder)
        self.eyes.processor.save_pretrained(folder)

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        seen = [self.eyes.look(picture) for message in messages for picture in message.get("images", ())]
        if not seen and not self._in_parts:
            return super().prompt_ids(messages)
        tokenizer, token = self.tokenizer, self.eyes.token
        chat = [self._turn(message) for message in messages]
        with foreign("a chat", "turns that this model's chat template takes", "change their roles"):
            text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        if text.count(token) != len(seen):
            raise UserError(
                f"expected a place for each of {len(seen)} pictures in this model's chat template, got "
                f"{text.count(token)}; give it another 'chat_template' in params.yaml"
            )
        pictures, found = iter(seen), list[int]()
        token_id = tokenizer.convert_tokens_to_ids(token)
        for one in tokenizer(text, add_special_tokens=False)["input_ids"]:
            found += next(pictures).ids if one == token_id else [one]
        return found

    def _turn(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as the template takes it. A text that spells a picture's token is broken up, so that it is text."""
        token, pictures = self.eyes.token, message.get("images", ())
        text = message["content"].replace(token, token[0] + JOINER + token[1:])
        if self._in_parts:
            parts = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
            return {"role": message["role"], "content": parts}
        return {"role": message["role"], "content": f"{token}\n" * len(pictures) + text}

    @cached_property
    def _in_parts(self) -> bool:
        """Whether the template takes a message's content in parts alone, and not as a text."""
        try:
            chat = [{"role": "user", "content": "U2U"}]
            return "U2U" not in self.tokenizer.apply_chat_template(chat, tokenize=False)
        except Exception:  # a template raises what it likes
            return True


def language_part(model: PreTrainedModel) -> PreTrainedModel:
    """The causal model of a model's decoder and head. UserError for a family whose decoder is no such model's."""
    config = model.config.get_text_config()
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"expected a model with eyes whose language part is a causal model by itself, got {config.model_type}; "
            "choose another one, say of the family LLaVA, LLaVA-NeXT or SmolVLM"
        )
    with torch.device("meta"):
        language = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    setattr(language, language.base_model_prefix, model.get_decoder())
    language.set_output_embeddings(model.get_output_embeddings())
    language.generation_config = model.generation_config
    return language.eval()


def load_seeing(folder: Path, compute: Compute, remedy: str) -> Seeing:
    """A base model with eyes, from a folder of a model that ``AutoModelForImageTextToText`` loads."""
    with foreign(folder, "a whole model with eyes", remedy):
        processor = AutoProcessor.from_pretrained(folder, backend="pil")
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=DTYPES[compute.dtype], use_safetensors=True)
    model = placed(model, compute).eval().requires_grad_(False)
    return seeing(model, processor)


def seeing(model: PreTrainedModel, processor: Any) -> Seeing:
    """A model with eyes, as it is used."""
    eyes = Eyes(model, processor)
    language = language_part(model)
    language.set_attn_implementation(ATTENTION)
    language.get_input_embeddings().forward = eyes.embed  # an attribute of the instance hides the class's method
    tokenizer = processor.tokenizer
    tokenizer.chat_template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    return Seeing(language, tokenizer, frozenset([tokenizer.eos_token_id, *ends]), eyes)
