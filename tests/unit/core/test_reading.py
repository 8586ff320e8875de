"""Files that anybody may have written: whatever they hold, their reader gets one sentence, soon."""

import errno
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from pipeline.core.artifacts import read_json, read_jsonl
from pipeline.core.errors import UserError, refused
from pipeline.core.reading import foreign, formed, json_of, read_yaml, yaml_of

LAUGHS = "\n".join(["a: &a0 [x, x]", *(f"b{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30))])

YAML = {
    "a key twice": ("a: 1\nb: 2\na: 3", "the key 'a' twice"),
    "a key twice, deep": ("a: {b: {c: 1, c: 2}}", "the key 'c' twice"),
    "what holds itself": ("a: &a [1, *a]", "holds itself"),
    "a mapping that holds itself": ("a: &a {b: *a}", "holds itself"),
    "a set": ("a: !!set {x, y}", "constructor for the tag"),
    "bytes": ("a: !!binary aGk=", "constructor for the tag"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "constructor for the tag"),
    "no number": ("a: .nan", "numbers below 2^63"),
    "infinity": ("a: -.inf", "numbers below 2^63"),
    "a number of 400 digits": (f"a: 1{'0' * 400}", "numbers below 2^63"),
    "a number of 5000 digits": (f"a: 1{'0' * 5000}", "Exceeds the limit"),
    "no whole number": ("a: !!int x", "invalid literal"),
    "a list as a key": ("[1, 2]: 3", "unhashable key"),
    "a truth value as a key": ("on: 1", "put it in quotes"),
    "nothing as a key": ("~: 1", "put it in quotes"),
    "lists without end": ("[" * 20000, "without end"),
    "mappings without end": ("{a: " * 20000, "without end"),
    "a billion laughs": (LAUGHS, "once aliases are unfolded"),
    "a control character": ("a: \x00", "special characters"),
    "half a list": ("a: [1", "expected YAML in"),
}


@pytest.mark.parametrize(("text", "said"), YAML.values(), ids=YAML)
def test_yaml_that_settings_do_not_need_is_one_sentence(text, said):
    start = time.process_time()
    with pytest.raises(UserError, match=r"expected [^;]* in p\.yaml") as caught:
        yaml_of(text, "p.yaml")
    assert said in str(caught.value) and "; " in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700 and time.process_time() - start < 2


def test_yaml_as_settings_are_written():
    text = "a: &a {x: 1, y: [2.5, true, ~]}\nb: {<<: *a, x: 3}\nc: 2001-01-01\n3: e\nd: *a"
    plain = {"x": 1, "y": [2.5, True, None]}
    assert yaml_of(text, "p") == {"a": plain, "b": {**plain, "x": 3}, "c": "2001-01-01", 3: "e", "d": plain}


@pytest.mark.parametrize("text", ["[" * 100000, '{"a":' * 100000, "1" * 5000, "{", "", "nul", '"\\x"'])
def test_what_is_no_json_is_one_sentence(text):
    with pytest.raises(UserError, match=r"expected JSON in p, got.*; remove it"):
        json_of(text, "p")


@pytest.mark.parametrize(
    ("line", "said"), [("[1]", "an object on line 1"), ("7", "an object"), ("{", "JSON in line 1")]
)
def test_a_line_that_is_no_object_is_one_sentence(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match=said):
        read_jsonl(path)


@pytest.mark.parametrize("read", [read_json, read_jsonl, read_yaml])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "memory", "bytes"])
def test_what_is_no_text_file_is_one_sentence_and_nothing_waits(tmp_path, read, kind):
    path = tmp_path / "file"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "memory":
        path.symlink_to("/proc/self/mem")
    else:
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="expected"):
        read(path)


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), IndexError(), RecursionError(), ZeroDivisionError()])
def test_another_form_is_one_sentence(error):
    with pytest.raises(UserError, match="expected rows in p, got another form"), formed("p", "rows"):
        raise error
    with pytest.raises(UserError, match="said before"), formed("p", "rows"):
        raise UserError("said before")


@pytest.mark.parametrize(
    "error", [Exception("x\ny"), RuntimeError(), MemoryError(), UserError("expected rows in p, x")]
)
def test_what_another_library_says_is_one_sentence(error):
    with pytest.raises(UserError, match="expected") as caught, foreign("p", "rows", "get it again"):
        raise error
    assert "\n" not in str(caught.value)


PIECES = st.lists(
    st.sampled_from([*"[]{}:,-?&*!|>%@#'\"\\\n 019.eE", "&a", "*a", "<<", "!!", "~", ": ", "\n  ", "é", "\x00"])
)


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_no_text_does_more_to_a_reader_than_a_sentence(pieces):
    text = "".join(pieces)
    for reader in (yaml_of, json_of):
        try:
            reader(text, "p")
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.EROFS, "Read-only"), OSError("I/O error"), SafetensorError("I/O error")]
)
def test_what_the_system_refused_is_a_sentence_however_it_is_passed_on(error):
    assert "but the system refused" in str(refused(error, "p"))
    assert refused(OSError(errno.ENOENT, "not there")) is None and refused(ValueError("x")) is None
