"""Files are written whole or not at all, and mistakes in them are named."""

import pytest
import torch
from safetensors.torch import save_file

from pipeline.core import artifacts, streaming
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import Factors, load_adapter, natural_order
from tests.tiny import same_tensors


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.json"
    artifacts.write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(path, {"new": float("nan")})
    with pytest.raises(RuntimeError), artifacts.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    folder = tmp_path / "folder"
    with artifacts.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("1")
    with pytest.raises(RuntimeError), artifacts.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("2")
        raise RuntimeError
    assert (folder / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_same_content_gives_the_same_bytes(tmp_path):
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    tensors = {"b": torch.arange(5), "a": torch.eye(3)}
    artifacts.write_tensors(one, tensors, {"x": [1, 2], "kind": "k"})
    artifacts.write_tensors(two, dict(reversed(tensors.items())), {"kind": "k", "x": [1, 2]})
    assert one.read_bytes() == two.read_bytes()
    read, meta = artifacts.read_tensors(one)
    assert same_tensors(read, tensors)
    assert meta == {"kind": "k", "x": [1, 2]}


def test_streamed_tensors_have_the_bytes_of_those_written_at_once(tmp_path):
    tensors = {"layers.10.u": torch.randn(3, 4), "layers.2.sigma": torch.zeros(0), "é": torch.randn(2, 2).T}
    meta = {"name": 'a "quoted" \u03b1 \\ name', "n": 3}
    artifacts.write_tensors(tmp_path / "whole", tensors, meta)
    streaming.stream_tensors(tmp_path / "streamed", iter(tensors.items()), meta)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "streamed").read_bytes()
    for wrong in ([("b", torch.ones(1)), ("a", torch.ones(1))], [("a", torch.ones(1, dtype=torch.float64))]):
        with pytest.raises(ValueError, match="expected float32 tensors by ascending name"):
            streaming.stream_tensors(tmp_path / "other", iter(wrong), {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["streamed", "whole"]


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("a.safetensors", b"\0" * 40, artifacts.read_tensors),
        ("a.json", b"{", artifacts.read_json),
        ("a.jsonl", b'{"a": 1}\n{"b"\n', artifacts.read_jsonl),
        ("a.jsonl", b'{"a": 1}\n', artifacts.read_examples),
        ("a.safetensors", b"", load_adapter),
    ],
)
def test_a_corrupt_file_is_named_in_one_sentence(tmp_path, name, content, read):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"expected .*{path}"):
        read(path)
    with pytest.raises(UserError, match="not there"):
        read(tmp_path / f"no-{name}")


def test_an_adapter_of_an_unknown_method_is_named(tmp_path):
    artifacts.write_tensors(tmp_path / "a", {}, {"kind": "nosuch", "config": {}, "provenance": {}})
    with pytest.raises(UserError, match=r"pipeline/methods/nosuch\.py"):
        load_adapter(tmp_path / "a")


def test_a_matrix_that_was_not_factorised_is_named(tmp_path):
    artifacts.write_tensors(tmp_path / "f", {}, {})
    with pytest.raises(UserError, match="run the stage factorize"):
        Factors(tmp_path / "f")["model.layers.0.mlp.up_proj"]


def test_layers_are_ordered_by_number():
    names = ["l.10.a", "l.2.b", "l.2.a"]
    assert sorted(names, key=natural_order) == ["l.2.a", "l.2.b", "l.10.a"]


def test_a_checkpoint_survives_being_replaced_while_in_use(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.load("state") is None
    checkpoints.save("state", {"a": torch.zeros(2)}, {"step": 1})
    tensors, meta = checkpoints.load("state")
    checkpoints.save("state", {"a": torch.ones(2)}, {"step": 2})
    assert tensors["a"].tolist() == [0, 0]
    assert meta == {"step": 1}
    checkpoints.clear()
    assert checkpoints.load("state") is None


def test_a_digest_tells_names_and_bytes_apart(tmp_path):
    for folder, name, content in (("x", "a", "1"), ("y", "a", "1"), ("z", "b", "1"), ("w", "a", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(content)
    digests = {folder: artifacts.digest(tmp_path / folder) for folder in "xyzw"}
    assert digests["x"] == digests["y"]
    assert len(set(digests.values())) == 3


def flipped(path, byte=-3):
    """The same file with one bit of another value."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float64])
def test_a_flipped_bit_is_noticed_and_named(tmp_path, dtype):
    path = tmp_path / "a.safetensors"
    tensors = {"one": torch.ones(()).to(dtype), "two": torch.arange(6).reshape(2, 3).to(dtype), "none": torch.ones(0)}
    artifacts.write_tensors(path, tensors, {"kind": "k"})
    assert artifacts.read_tensors(path)[1] == {"kind": "k"}
    assert artifacts.check_tensors(path) == 3
    flipped(path)
    for read in (artifacts.read_tensors, artifacts.check_tensors):
        with pytest.raises(UserError, match=f"expected the bytes of '(one|two)' in {path} as they were written"):
            read(path)


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save("state", {"z": torch.ones(4)}, {"step": 3})
    flipped(tmp_path / "state.safetensors")
    with pytest.raises(UserError, match="the file is damaged"):
        kept.load("state")


def test_a_large_file_is_held_to_its_checksums_where_it_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    artifacts.write_tensors(path, {"z": torch.ones(4)}, {})
    flipped(path)
    monkeypatch.setattr(artifacts, "CHECKED", 10)
    assert artifacts.read_tensors(path)[0]["z"].shape == (4,)
    with pytest.raises(UserError, match="the file is damaged"):
        artifacts.check_tensors(path)


def test_a_file_of_others_needs_no_checksums(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"z": torch.ones(4)}, path)
    assert artifacts.read_tensors(path)[1] == {}
    assert artifacts.check_tensors(path) == 0
