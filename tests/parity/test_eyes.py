"""A trained model with eyes in plain transformers: the same greedy answers in float32 as ours, picture by picture.

Needs SELFADAPT_EYES, the folder of a project after its run of the profile eyes: its model and its signs are read.
SELFADAPT_EYES_N is how many signs are asked about.
"""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipeline.core.artifacts import read_examples
from pipeline.model.decoding.answer import generate
from pipeline.model.forward.base import Adapted, Compute, load_base

PROJECT = os.environ.get("SELFADAPT_EYES")
COUNT = int(os.environ.get("SELFADAPT_EYES_N", "200"))
NEW = 10
COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=2048, cache_tokens=32768)

pytestmark = [
    pytest.mark.skipif(PROJECT is None, reason="SELFADAPT_EYES names no project with a model that sees"),
    pytest.mark.timeout(7200),
]


def test_a_folder_answers_in_plain_transformers_as_here() -> None:
    folder = Path(str(PROJECT)) / "artifacts/base/model"
    examples = read_examples(Path(str(PROJECT)) / "data/tasks/signs/test.jsonl")[:COUNT]
    base = load_base(folder, COMPUTE)
    prompts = [base.prompt_ids(example.messages) for example in examples]
    ours = [base.text(answer.ids) for (answer,) in generate(Adapted(base, COMPUTE), prompts, max_new_tokens=NEW)]
    assert ours == [plain(folder, example.messages) for example in examples]


_loaded: list = []


@torch.no_grad()
def plain(folder: Path, messages: tuple) -> str:
    """The answer of transformers alone, its chat as its own documentation has it."""
    if not _loaded:
        _loaded.append(AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval())
        _loaded.append(AutoProcessor.from_pretrained(folder, backend="pil"))
    model, processor = _loaded
    chat = [
        {
            "role": one["role"],
            "content": [*({"type": "image"} for _ in one.get("images", ())), {"type": "text", "text": one["content"]}],
        }
        for one in messages
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    shown = [Image.open(path) for one in messages for path in one.get("images", ())]
    inputs = processor(text=[text], images=[shown], return_tensors="pt")
    whole = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    return processor.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
