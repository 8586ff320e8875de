"""Settings, rows and weights that hypothesis has spoilt: each reader gives a value or one sentence, soon."""

import json
import struct
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.artifacts import check_tensors, read_examples, read_json, read_jsonl, read_tensors, write_tensors
from pipeline.core.config import Section, read_params, read_plan, settings, sources
from pipeline.core.reading import json_of, yaml_of
from tests.fuzz import MANY, as_json, bytes_, changed, changes, damaged, edited, edits, only_a_sentence, written

PARAMS = """
profile: tiny
seeds: [0]
compute: {device: cpu, threads: 1, fraction: 0.5, names: {a: b}}
few_shot: &more {elites: 3, configurations: [per-layer, normalised]}
other: {like: compute, threads: 2}
tasks:
  sums: {role: trained, data: {options: {smallest: 10, largest: 99}}}
plan: {train: {a: {x: 1}}, cells: {}}
"""
ROW = {"id": "a-1", "messages": [{"role": "user", "content": "1 + 1 ="}], "target": "2", "meta": {"answer": "2"}}


class Inner(Section):
    smallest: int
    largest: float


class Options(Section, at="tasks.sums.data"):
    options: Inner


class Compute(Section, at="compute"):
    device: str
    threads: int
    fraction: float
    names: dict[str, str]


class Other(Compute, at="other"):
    """Stands on another."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path to write to, the same for every example."""
    return tmp_path_factory.mktemp("fuzz") / "file"


def read_settings(path: Path) -> None:
    """All that a stage does to its settings before it runs."""
    params = read_params(path)
    for kind in (Options, Compute, Other):
        only_a_sentence(kind.read, params, {})
        only_a_sentence(kind.places, params, {})
    for where in ("", "few_shot", "tasks.sums.role", "other.threads"):
        only_a_sentence(settings, params, where)
        only_a_sentence(sources, params, where)


@MANY
@given(made=edits)
def test_any_text_of_settings(file: Path, made: list) -> None:
    file.write_bytes(written(edited(PARAMS, made)))
    for read in (read_settings, read_plan):
        only_a_sentence(read, file)


@MANY
@given(made=changes)
def test_any_value_in_the_settings(file: Path, made: list) -> None:
    file.write_bytes(written(as_json(changed(yaml.safe_load(PARAMS), made))))
    for read in (read_settings, read_plan):
        only_a_sentence(read, file)


@MANY
@given(text=st.text(max_size=200))
def test_any_text_at_all(text: str) -> None:
    for read in (yaml_of, json_of):
        only_a_sentence(read, text, "p")


@MANY
@given(made=changes, rows=st.integers(1, 3), spoilt=edits)
def test_any_rows(file: Path, made: list, rows: int, spoilt: list) -> None:
    text = "".join(f"{as_json(row)}\n" for row in [*[ROW] * rows, changed(ROW, made)])
    for content in (text, edited(text, spoilt)):
        file.write_bytes(written(content))
        for read in (read_jsonl, read_examples, read_json):
            only_a_sentence(read, file)


@MANY
@given(made=bytes_)
def test_any_bytes_of_rows(file: Path, made: list) -> None:
    file.write_bytes(damaged(f"{json.dumps(ROW)}\n".encode() * 2, made))
    for read in (read_jsonl, read_examples, read_json):
        only_a_sentence(read, file)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good file of tensors, with checksums."""
    path = tmp_path_factory.mktemp("weights") / "good.safetensors"
    tensors = {"a.z": torch.arange(6.0).reshape(2, 3), "b.z": torch.ones(4, dtype=torch.bfloat16), "c": torch.ones(())}
    write_tensors(path, tensors, {"kind": "svf", "config": {"x": [1]}, "provenance": {"task": "sums"}})
    return path.read_bytes()


def read_weights(path: Path) -> None:
    """Both ways in which a file of tensors is read."""
    for read in (read_tensors, check_tensors):
        only_a_sentence(read, path)


@MANY
@given(made=bytes_)
def test_any_bytes_of_weights(file: Path, weights: bytes, made: list) -> None:
    file.write_bytes(damaged(weights, made))
    read_weights(file)


@MANY
@given(made=changes, about=changes, spoilt=st.one_of(st.none(), edits), length=st.sampled_from([0, 0, 0, 1, -1, 2**62]))
def test_any_header_of_weights(file: Path, weights: bytes, made: list, about: list, spoilt: list, length: int) -> None:
    """made: what becomes of the header. about: of what stands in it as text. length: added to what is said of it."""
    (size,) = struct.unpack("<Q", weights[:8])
    header = json.loads(weights[8 : 8 + size])
    header["__metadata__"]["selfadapt"] = as_json(changed(json.loads(header["__metadata__"]["selfadapt"]), about))
    text = as_json(changed(header, made) if length else header)
    head = written(edited(text, spoilt) if spoilt else text)
    file.write_bytes(struct.pack("<Q", max(0, len(head) + length)) + head + weights[8 + size :])
    read_weights(file)
