"""Models that see: our passes over pictures against those of transformers."""

import base64
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipeline.core.errors import UserError
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.trial import difference
from pipeline.model.forward import eyes as module
from pipeline.model.forward.base import Adapted, linear_modules, load_base
from pipeline.pictures.files import url
from tests.seeing import FAMILIES, folder_of, picture
from tests.tiny import tiny_compute

QUESTIONS = ("What is this?", "How many are there, and why?", "Say it.")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> Path:
    return folder_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def base(folder):
    return load_base(folder, tiny_compute())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    return [picture(tmp_path_factory.mktemp("pictures"), seed) for seed in range(3)]


def asked(question: str, *shown: str) -> list[dict]:
    return [{"role": "user", "content": question, "images": list(shown)}]


def plain(folder: Path, prompts: list[list[dict]], new: int) -> list[list[int]]:
    """Greedy answers by transformers alone, each prompt by itself."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor, answers = AutoProcessor.from_pretrained(folder, backend="pil"), []
    for messages in prompts:
        in_parts = "part" in processor.tokenizer.chat_template
        chat = [
            {
                "role": one["role"],
                "content": [*({"type": "image"} for _ in one["images"]), {"type": "text", "text": one["content"]}]
                if in_parts
                else "<image>\n" * len(one["images"]) + one["content"],
            }
            for one in messages
        ]
        text = processor.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        shown = [Image.open(path) for one in messages for path in one["images"]]
        inputs = processor(text=[text], images=[shown], return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            whole = model.generate(**inputs, max_new_tokens=new, do_sample=False)
        answers.append(whole[0, inputs["input_ids"].shape[1] :].tolist())
    return answers


def test_greedy_answers_are_those_of_transformers(folder, base, pictures):
    prompts = [asked(question, shown) for question in QUESTIONS for shown in pictures]
    prompts += [asked("Which is larger?", *pictures[:2])]
    ours = generate(Adapted(base, tiny_compute(300, 2000)), [base.prompt_ids(one) for one in prompts], max_new_tokens=6)
    assert [list(answer[0].ids) for answer in ours] == plain(folder, prompts, 6)


def test_an_answer_depends_on_the_picture(base, pictures):
    answers = generate(
        Adapted(base, tiny_compute()), [base.prompt_ids(asked("What?", shown)) for shown in pictures], max_new_tokens=8
    )
    assert len({answer[0].ids for answer in answers}) > 1


def test_a_picture_that_is_given_again_has_its_ids_in_whatever_form(base, pictures):
    url = "data:image/png;base64," + base64.b64encode(Path(pictures[0]).read_bytes()).decode()
    assert base.prompt_ids(asked("What?", pictures[0])) == base.prompt_ids(asked("What?", url))
    assert base.prompt_ids(asked("What?", pictures[0])) != base.prompt_ids(asked("What?", pictures[1]))


def test_no_text_spells_a_picture(base, pictures):
    token = base.eyes.token
    spelled = base.prompt_ids(asked(f"{token} What {token}?", pictures[0]))
    assert sum(one >= base.eyes.vocabulary for one in spelled) == base.eyes.look(pictures[0]).count
    assert max(base.prompt_ids([{"role": "user", "content": f"What is {token}?"}])) < base.eyes.vocabulary


def test_features_that_are_let_go_of_are_computed_again(base, pictures, monkeypatch):
    prompts = [base.prompt_ids(asked("What?", shown)) for shown in pictures]
    whole = [answer.ids for (answer,) in generate(Adapted(base, tiny_compute()), prompts, max_new_tokens=4)]
    monkeypatch.setattr(module, "FEATURES", 0)
    base.eyes._features.clear()
    again = generate(Adapted(base, tiny_compute(1, 1)), prompts, max_new_tokens=4)
    assert [answer.ids for (answer,) in again] == whole
    assert len(base.eyes._features) <= 1


def test_a_picture_that_was_let_go_of_has_to_be_sent_again(base, tmp_path, monkeypatch):
    urls = [url(Path(picture(tmp_path, seed)).read_bytes()) for seed in (11, 12)]
    monkeypatch.setattr(module, "SOURCES", len(urls[0]) + 10)
    monkeypatch.setattr(base.eyes, "_held", 0)
    first, second = (base.prompt_ids(asked("What?", one)) for one in urls)
    adapted = Adapted(base, tiny_compute())
    assert generate(adapted, [second], max_new_tokens=2)
    with pytest.raises(UserError, match="send it again"):
        generate(adapted, [first], max_new_tokens=2)
    assert base.prompt_ids(asked("What?", urls[0])) == first
    assert generate(adapted, [first], max_new_tokens=2)


def test_modules_are_those_of_the_language_part_and_have_its_names(base):
    names = linear_modules(base.model, ("q_proj", "down_proj"))
    assert names[0] == "model.layers.0.self_attn.q_proj" and len(names) == 4


def test_a_model_whose_numbers_are_those_of_transformers_passes_the_trial(folder):
    assert difference(folder) < 1e-4


def test_a_model_without_eyes_refuses_a_picture(pictures):
    from pipeline.model.forward.base import Base

    with pytest.raises(UserError, match="expected a model with eyes"):
        Base(None, None, frozenset()).prompt_ids(asked("What?", pictures[0]))
