"""Tiny models that see, with random weights, as folders that transformers loads; and pictures to show them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    ViTImageProcessorPil,
)

from pipeline.model.forward.tower import ColumnTowerConfig
from pipeline.pictures.files import png

SPECIAL = ["<pad>", "<s>", "<|im_end|>", "<|im_start|>", "<image>", "<fake_token_around_image>", "<global-img>"]
SPECIAL += ["<end_of_utterance>", *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))]
PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = ("llava", "llava_next", "smolvlm", "columns")


def letters(template: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: number for number, token in enumerate([*SPECIAL, *alphabet])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="<|im_end|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    tokenizer.chat_template = template
    return tokenizer


def made(family: str) -> tuple[Any, Any]:
    """A model and its processor."""
    tokenizer = letters(PARTS if family in ("smolvlm", "llava_next") else PLAIN)
    image = tokenizer.convert_tokens_to_ids("<image>")
    text: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    text |= {"initializer_range": 0.3, "max_position_embeddings": 512}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
    torch.manual_seed(0)
    language = LlamaConfig(**text)
    clip = CLIPVisionConfig(**VISION, image_size=28, patch_size=14, initializer_range=0.3)
    size = {"height": 28, "width": 28}
    if family == "llava":
        model = LlavaForConditionalGeneration(
            LlavaConfig(vision_config=clip, text_config=language, image_token_index=image, tie_word_embeddings=False)
        )
        processor = LlavaProcessor(
            CLIPImageProcessorPil(size=size, crop_size=size), tokenizer, 14, "default", num_additional_image_tokens=1
        )
    elif family == "llava_next":
        grid = [[28, 56], [56, 28], [56, 56]]
        config = LlavaNextConfig(
            vision_config=clip, text_config=language, image_token_index=image, image_grid_pinpoints=grid
        )
        model = LlavaNextForConditionalGeneration(config)
        pictures = LlavaNextImageProcessorPil(size=size, crop_size=size, image_grid_pinpoints=grid)
        processor = LlavaNextProcessor(pictures, tokenizer, 14, "default", num_additional_image_tokens=1)
    elif family == "smolvlm":
        config = SmolVLMConfig(
            vision_config={**VISION, "image_size": 56, "patch_size": 14},
            text_config=language.to_dict(),
            image_token_id=image,
            scale_factor=2,
            pad_token_id=0,
        )
        model = SmolVLMForConditionalGeneration(config)
        pictures = Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
        processor = Idefics3Processor(pictures, tokenizer, image_seq_len=4)
    else:
        tower = ColumnTowerConfig(hidden_size=32, num_hidden_layers=1, channels=4)
        config = LlavaConfig(
            vision_config=tower,
            text_config=language,
            image_token_index=image,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=False,
        )
        model = LlavaForConditionalGeneration(config)
        pictures = ViTImageProcessorPil(size={"height": 32, "width": 128}, image_mean=[0.5] * 3, image_std=[0.25] * 3)
        processor = LlavaProcessor(pictures, tokenizer, 16, "full")
    for name, parameter in model.named_parameters():  # pictures must be told apart
        if "multi_modal_projector" in name or "connector" in name or name.endswith("nothing"):
            torch.nn.init.normal_(parameter, std=1.0)
        if "vision_tower.stem" in name and parameter.dim() == 4:
            torch.nn.init.normal_(parameter, std=0.3)
        if name.endswith("vision_tower.head.weight"):
            torch.nn.init.normal_(parameter, std=3.0)
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    return model.eval(), processor


def folder_of(family: str, folder: Path) -> Path:
    """The folder of a tiny model."""
    model, processor = made(family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def picture(folder: Path, seed: int, *, wide: int = 60, high: int = 40) -> str:
    """A picture of noise; its path."""
    pixels = np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)
    path = folder / f"{seed}.png"
    path.write_bytes(png(pixels))
    return str(path)
