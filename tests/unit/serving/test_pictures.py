"""Pictures in serving: by the Python entry, on the command line, and sent by the openai client."""

import base64
import shutil
from pathlib import Path

import httpx
import openai
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipeline.core.errors import UserError
from pipeline.flow import plan
from pipeline.pictures.files import url
from pipeline.serving.assistant import Assistant, chat_of
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.server import Server
from pipeline.serving.project import Project
from tests.project import ROOT
from tests.seeing import folder_of, picture
from tests.serving import served

QUESTION = "What does the sign say?"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project whose model sees."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copyfile(ROOT / "pipeline/profiles/tiny.yaml", folder / "params.yaml")
    plan.update(folder / "params.yaml", folder / "plan.yaml")
    project = Project(folder)
    folder_of("columns", project.model)
    return project


@pytest.fixture(scope="module")
def client(project):
    with served(Server(Assistant(project, rows=4), Limits(body_bytes=2_000_000, max_new_tokens=60))) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture
def sign(tmp_path) -> str:
    return picture(tmp_path, 1, wide=128, high=32)


def expected(folder: Path, sign: str) -> str:
    """The greedy answer by transformers alone."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    chat = [{"role": "user", "content": f"<image>\n{QUESTION}"}]
    text = processor.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[[Image.open(sign)]], return_tensors="pt")
    with torch.no_grad():
        whole = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return processor.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def asked(picture: str, **more) -> list[dict]:
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": picture, **more}}]
    return [{"role": "user", "content": parts}]


def test_a_picture_is_answered_the_same_from_a_file_and_over_a_socket(project, client, sign):
    answer = (
        Assistant(project).generate([{"role": "user", "content": QUESTION, "images": [sign]}], max_new_tokens=8).text
    )
    assert answer == expected(project.model, sign)
    sent = client.chat.completions.create(
        model="base", messages=asked(url(Path(sign).read_bytes()), detail="low"), max_tokens=8
    )
    assert sent.choices[0].message.content == answer
    assert sent.usage.prompt_tokens > 16


def test_bad_pictures_are_one_sentence_and_the_clients_fault(client, sign, tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    data = Path(sign).read_bytes()
    bad = {
        url(data[: len(data) // 2]): "expected a whole picture",
        url((tmp_path / "huge.png").read_bytes()): "a far larger one",
        "data:image/png;base64," + base64.b64encode(b"a text file").decode(): "expected a whole picture",
        "https://example.org/sign.png": "nothing is fetched here",
        str(sign): "nothing is fetched here",
        "file:///etc/hosts": "nothing is fetched here",
    }
    for shown, said in bad.items():
        with pytest.raises(openai.BadRequestError, match=said) as raised:
            client.chat.completions.create(model="base", messages=asked(shown), max_tokens=4)
        assert "\n" not in raised.value.body["message"]


def test_a_client_names_no_file_of_the_machine(client, sign):
    turn = {"role": "user", "content": QUESTION, "images": [sign]}
    answers = [
        client.chat.completions.create(model="base", messages=[one], max_tokens=4).usage.prompt_tokens
        for one in (turn, {"role": "user", "content": QUESTION})
    ]
    assert answers[0] == answers[1]


def test_a_picture_that_is_too_large_to_be_sent_is_refused(client):
    address = str(client.base_url)
    sent = httpx.post(
        f"{address}chat/completions", json={"model": "base", "messages": asked("data:" + "x" * 3_000_000)}
    )
    assert sent.status_code == 413


BAD = {
    "no list": ({"role": "user", "content": "x", "images": "a.png"}, "expected a list of pictures"),
    "no text": ({"role": "user", "content": "x", "images": [3]}, "expected a list of pictures"),
    "the system's": ({"role": "system", "content": "x", "images": ["a.png"]}, "expected pictures in a user's turn"),
}


@pytest.mark.parametrize(("turn", "said"), BAD.values(), ids=BAD)
def test_pictures_belong_to_a_users_turn(turn, said):
    with pytest.raises(UserError, match=said):
        chat_of([turn, {"role": "user", "content": "x"}])
