"""A language model gets eyes: a tower, a projector, and the LLaVA model that the three are together.

Pictures and questions for it are drawn here: signs that no task has (``pipeline.pictures.questions.of_others``).
"""

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    ViTImageProcessorPil,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from pipeline.core.artifacts import read_tensors
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import progress
from pipeline.core.types import Example, conversation
from pipeline.model.forward.base import DTYPES
from pipeline.model.forward.tower import COLUMNS, HEIGHT, WIDTH, ColumnTower, ColumnTowerConfig
from pipeline.pictures import signs
from pipeline.pictures.files import png, url
from pipeline.pictures.questions import BEYOND, KINDS, SYSTEM, of_others
from pipeline.training import supervised
from pipeline.training.tower import Reader, Reading, Signs, characters

PATCH = 16  # pixels, of the processor's count of a picture's tokens: 2 × 8 patches are as many as there are columns
MEAN, DEVIATION = 0.5, 0.25  # of pixels between 0 and 1; the tower takes their contrast in any case
SPELLED = re.compile("Ġ[a-z]{3,8}")  # a token of a byte-level vocabulary that is a small word behind a space
ASKED = 0.5  # share of the questions that stand behind the tasks' system turn; the others stand alone
RARE, COMMON = 12_000, 600  # tokens between them are common words, and not the commonest
# Words are the hardest to read, and who only ever reads aloud forgets how to answer anything else.
LEARNT = [*KINDS.values(), *(KINDS[kind] for kind in ("word", "word", "word beside a number")), *BEYOND.values()]
# Content in parts, as chats with pictures have it, or a plain text, as those without have it.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '@\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Towered(Section, at="bases.{name}.tower"):
    """A tower. size: of its layers; see ``ColumnTowerConfig``. training: how it learns to read."""

    size: dict[str, int]
    training: Reading


class Eyed(Section, at="bases.{name}"):
    """A base model that is given eyes.

    of: the base model whose language model it is. token: of its vocabulary, one that no chat uses, which stands for a
    picture. adapter, training: the LoRA by which the language model learns to read the tower's columns, and how; it is
    then merged. examples: signs that it learns from.
    """

    source: Literal["eyes"]
    name: str
    of: str
    token: str
    tower: Towered
    adapter: dict[str, Any]
    training: supervised.Answering
    examples: int = Field(ge=1)


def words_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Common words of a byte-level vocabulary, those of the tasks left out. UserError where it has too few."""
    ids = tokenizer.get_vocab()
    found = sorted(token[1:] for token, id_ in ids.items() if COMMON < id_ < RARE and SPELLED.fullmatch(token))
    words = [word for word in found if word not in signs.KNOWN]
    if len(words) < 100:
        raise UserError(
            f"expected words among the tokens of a byte-level vocabulary, got {len(words)}; give eyes to another model"
        )
    return words


def drawn(words: Sequence[str], count: int, seed: str) -> Signs:
    """Signs for the tower."""
    draw = random.Random(seed)
    texts = [signs.unread(draw, words) for _ in range(count)]
    pictures = [signs.draw_sign(text, draw) for text in progress("draw signs", texts, count)]
    return Signs(np.stack(pictures), texts)


def asked(words: Sequence[str], count: int, seed: str) -> list[Example]:
    """Questions about signs for the language model, of each kind of ``LEARNT`` as many."""
    draw, source = random.Random(seed), of_others(words)
    examples = []
    for place in range(count):
        text, question, answer = LEARNT[place % len(LEARNT)](draw, source)
        *system, user = conversation(SYSTEM, (), question)
        messages = [*(system if draw.random() < ASKED else []), {**user, "images": [_shown(text, draw)]}]
        examples.append(Example(f"{seed}-{place}", tuple(messages), answer, {"task": "reading", "answer": answer}))
    return examples


def _shown(text: str, draw: random.Random) -> str:
    return url(png(signs.draw_sign(text, draw)))


def untrained(folder: Path, tower: Towered, *, autocast: bool) -> tuple[Reader, PreTrainedTokenizerBase]:
    """A tower and a projector for the language model in a folder, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    config = _config(tower, model.config, 0)
    embeddings = characters(model.get_input_embeddings().weight.detach(), tokenizer.get_vocab())
    projector = LlavaMultiModalProjector(config)
    return Reader(ColumnTower(config.vision_config), projector, embeddings, autocast=autocast), tokenizer


def _config(tower: Towered, text: Any, token: int) -> LlavaConfig:
    """token: the id that stands for a picture."""
    return LlavaConfig(
        vision_config=ColumnTowerConfig(**tower.size),
        text_config=text,
        image_token_index=token,
        image_seq_length=COLUMNS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=bool(text.tie_word_embeddings),
    )


def together(folder: Path, tower: Path, settings: Eyed, dtype: str) -> tuple[LlavaForConditionalGeneration, Any]:
    """The model of a language model, in a folder, and a trained tower with its projector; and its processor."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image = tokenizer.get_vocab().get(settings.token)
    if image is None:
        raise UserError(
            f"params.yaml: expected a token of the vocabulary as the 'token' of the eyes, got '{settings.token}'; name "
            "one that no chat uses"
        )
    language = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], use_safetensors=True)
    model = LlavaForConditionalGeneration(_config(settings.tower, language.config, image)).to(DTYPES[dtype])
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.tie_weights()
    tensors = read_tensors(tower)[0]
    model.model.vision_tower.load_state_dict(_part(tensors, "tower"))
    model.model.multi_modal_projector.load_state_dict(_part(tensors, "projector"))
    model.generation_config = language.generation_config
    tokenizer.chat_template = TEMPLATE.replace("@", settings.token)
    pictures = ViTImageProcessorPil(
        size={"height": HEIGHT, "width": WIDTH}, image_mean=[MEAN] * 3, image_std=[DEVIATION] * 3
    )
    processor = LlavaProcessor(
        pictures, tokenizer, PATCH, "full", chat_template=tokenizer.chat_template, image_token=settings.token
    )
    return model.eval().requires_grad_(False), processor


def _part(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
