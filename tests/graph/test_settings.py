"""Unknown, missing and mistyped settings give one clear sentence each, wherever they stand."""

from pathlib import Path

import pytest

from pipeline.core.config import Section, lookup, read_params
from pipeline.core.errors import UserError


class Inner(Section):
    learning_rate: float
    steps: int


class Outer(Section, at="svf.{task}"):
    name: str
    inner: Inner


READ = "expected settings that a stage reads in params.yaml, but "
GOOD = {"name": "x", "inner": {"learning_rate": 0.1, "steps": 3}}


def sentence(value: dict) -> str:
    with pytest.raises(UserError) as raised:
        Outer.parse(value, "svf.sums")
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith("expected ") and "params.yaml" in text
    return text


def test_good_settings_are_read_and_frozen() -> None:
    read = Outer.parse(GOOD, "svf.sums")
    assert read.inner.steps == 3
    with pytest.raises(ValueError, match="frozen"):
        read.inner.steps = 4


def test_the_place_is_filled_from_the_arguments() -> None:
    assert Outer.location({"task": "sums"}) == "svf.sums"


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    said = sentence({**GOOD, "inner": {**GOOD["inner"], "learning_rat": 1.0}})
    assert said == f"{READ}'svf.sums.inner.learning_rat' is not a known setting; did you mean 'learning_rate'?"
    said = sentence({**GOOD, "zzz": 1})
    assert said == f"{READ}'svf.sums.zzz' is not a known setting; known settings: inner, name"


def test_a_missing_setting_is_named() -> None:
    assert "but 'svf.sums.inner.steps' is missing; add it" in sentence({**GOOD, "inner": {"learning_rate": 0.1}})


@pytest.mark.parametrize("value", ["3", 2.5, True, None, [3]])
def test_a_mistyped_setting_is_named_with_what_stands_there(value: object) -> None:
    said = sentence({**GOOD, "inner": {"learning_rate": 0.1, "steps": value}})
    assert "'svf.sums.inner.steps' does not fit" in said
    assert repr(value) in said


def test_an_unknown_place_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match="expected 'svf.smus', but 'svf' has no 'smus'; did you mean 'sums'?"):
        lookup({"svf": {"sums": 1}}, "svf.smus")
    with pytest.raises(UserError, match="the file has no 'lora'; the file has: svf"):
        lookup({"svf": 1}, "lora")


def test_an_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match="selfadapt profile use"):
        read_params(path)
    path.write_text("a: [")
    with pytest.raises(UserError, match="expected YAML in"):
        read_params(path)
    path.write_text("- a")
    with pytest.raises(UserError, match="expected a mapping of sections in .*, got list"):
        read_params(path)
