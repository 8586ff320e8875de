"""Requests, files of mixtures and adapters that hypothesis has spoilt."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.assistant import Assistant, chat_of
from pipeline.serving.exported import read_exported
from pipeline.serving.forms import form_of
from pipeline.serving.http import bodies
from pipeline.serving.http.bodies import Chat, Completion
from pipeline.serving.http.refusals import Refused, as_refusal
from pipeline.serving.http.server import Server
from tests.fuzz import MANY, as_json, changed, changes, edited, edits, only_a_sentence, written
from tests.project import make_project
from tests.serving import LIMITS, REFUSED, SERVED, USER

CHATS = [{"model": "base", "messages": USER, **more} for more in SERVED.values()] + [
    body for body, *_ in REFUSED.values()
]
TEXTS = [
    {"model": "base", "prompt": prompt, "max_tokens": 3, "echo": True}
    for prompt in ("def", ["a", "b"], [5, 6], [[5], [6]])
]
MIXTURES = [
    {"experts": {"sums": 0.5, "functions": 0.5}, "mix": "paper"},
    {"experts": {"kinds": [0.1, 2.0]}, "mix": "delta"},
]
ROW = {"id": "a", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "target": "2"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(Assistant(make_project(tmp_path_factory.mktemp("made") / "project"), rows=4), LIMITS)


def taken(server: Server, kind: type[Chat] | type[Completion], body: bytes) -> None:
    """All that is done with a request before it is put in line."""
    try:
        asked = bodies.read(kind, body)
        if isinstance(asked, Chat):
            server.engine.prompt_ids(chat_of(asked.turns))
        else:
            server._texts(asked)
        server._options(asked, asked.max_tokens or 1)
        if asked.mixture is not None:
            server.assistant.available.mixture(asked.mixture, asked.mix)
        server._full(asked.model)
    except Exception as error:
        if (refused := as_refusal(error)).status == 500:
            raise
        assert refused.status in (400, 404)
        raise Refused(refused.status, str(refused)) from None


@MANY
@given(number=st.integers(0, 999), made=changes, spoilt=st.one_of(st.none(), edits))
def test_any_request(server: Server, number: int, made: list, spoilt: list | None) -> None:
    for kind, known in ((Chat, CHATS), (Completion, TEXTS)):
        text = as_json(changed(known[number % len(known)], made))
        only_a_sentence(taken, server, kind, written(edited(text, spoilt) if spoilt else text), errors=Refused)


@MANY
@given(number=st.integers(0, 1), made=changes, spoilt=st.one_of(st.none(), edits))
def test_any_file_of_a_mixture(server: Server, tmp_path: Path, number: int, made: list, spoilt: list | None) -> None:
    text = as_json(changed(MIXTURES[number], made))
    (tmp_path / "m.json").write_bytes(written(edited(text, spoilt) if spoilt else text))
    only_a_sentence(server.assistant.available.named, f"mixture:{tmp_path / 'm.json'}")


@pytest.fixture(scope="module")
def mixed(server: Server) -> bytes:
    """The file of a mixture that a search found."""
    return next(iter(server.assistant.project.mixtures.values())).read_bytes()


def parted(file: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a file of tensors, and what comes behind it."""
    (size,) = struct.unpack("<Q", file[:8])
    return json.loads(file[8 : 8 + size]), file[8 + size :]


@MANY
@given(made=changes, tensors=st.booleans())
def test_any_adapter(server: Server, mixed: bytes, tmp_path: Path, made: list, tensors: bool) -> None:
    """tensors: what becomes another are the names and shapes of tensors; else what the file says of itself."""
    header, data = parted(mixed)
    about = json.loads(header.pop("__metadata__")["selfadapt"])
    about.pop("crc32")
    header, about = (changed(header, made), about) if tensors else (header, changed(about, made))
    text = (
        written(json.dumps({**header, "__metadata__": {"selfadapt": as_json(about)}}))
        if isinstance(header, dict)
        else b"[]"
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    only_a_sentence(server.assistant.available.named, f"mixture:{path}")


@MANY
@given(made=changes)
def test_any_exported_expert(server: Server, tmp_path: Path, made: list) -> None:
    config = {"kind": "svf", "config": {}, "base_sha256": "0" * 64, "form": {"task": "sums", "turns": USER}}
    (tmp_path / "config.json").write_bytes(written(as_json(changed(config, made))))
    only_a_sentence(read_exported, tmp_path, server.assistant.project.model)


@MANY
@given(made=changes, spoilt=st.one_of(st.none(), edits))
def test_any_examples_that_a_form_is_read_from(tmp_path: Path, made: list, spoilt: list | None) -> None:
    text = "".join(f"{as_json(row)}\n" for row in (ROW, changed(ROW, made)))
    (tmp_path / "train.jsonl").write_bytes(written(edited(text, spoilt) if spoilt else text))
    only_a_sentence(form_of, "sums", tmp_path)
