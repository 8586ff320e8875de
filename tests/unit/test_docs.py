"""The pages of the documentation name everything that there is to be named."""

import re

import pytest

from pipeline.core.config import read_params, settings
from pipeline.flow.profiles import names
from pipeline.serving.http.limits import Limits
from pipeline.serving.peft import Kind


@pytest.fixture(scope="module")
def page(root):
    return lambda name: (root / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_every_profile_has_its_line(page):
    assert set(re.findall(r"^\| `([\w.-]+)` \|", page("profiles"), re.MULTILINE)) == set(names())


def test_every_variable_of_the_environment_is_told(page, root):
    files = [file for folder in ("pipeline", "selfadapt") for file in (root / folder).rglob("*.py")]
    read = {name for file in files for name in re.findall(r"SELFADAPT_[A-Z_]+", file.read_text(encoding="utf-8"))}
    read -= {kind.value for kind in Kind}  # what peft's folders are known by
    assert read <= set(re.findall(r"SELFADAPT_[A-Z_]+", page("troubleshooting")))


def test_every_method_and_its_settings_are_told(page, root):
    methods = page("methods")
    files = {file.name for file in (root / "pipeline/methods").glob("[a-z]*.py")} - {"base.py"}
    assert not [name for name in files if name not in methods]
    params = read_params(root / "pipeline/profiles/laptop.yaml")
    told = {name for section in ("svf", "reinforce", "few_shot") for name in params[section]}
    assert not [name for name in told if f"`{name}`" not in methods]


def numbers(text):
    """``16, 12, 6`` as numbers; none where it says something else."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return []


@pytest.mark.parametrize("place", ["svf", "reinforce", "few_shot", "lora.training"])
def test_numbers_of_laptop_stand_as_they_are(page, root, place):
    """Where a line of a section's table has a number for each setting that it names."""
    laptop = read_params(root / "pipeline/profiles/laptop.yaml")
    section = page("methods").partition(f"| setting `{place}.` |")[2].partition("\n\n")[0]
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    told = [(re.findall(r"`(\w+)`", names), numbers(values)) for names, values, *_ in lines]
    pairs = [pair for names, values in told if len(names) == len(values) for pair in zip(names, values, strict=True)]
    assert pairs
    assert pairs == [(name, settings(laptop, place)[name]) for name, _ in pairs]


def test_limits_of_the_server_stand_as_they_are(page):
    table = dict(re.findall(r"^\| `(\w+)` \| ([\d ]+) \|", page("using"), re.MULTILINE))
    assert {name: float(number.replace(" ", "")) for name, number in table.items()} == {
        name: float(value) for name, value in vars(Limits()).items()
    }


def test_every_page_is_in_the_menu(root):
    text = (root / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(\w+\.md)$", text, re.MULTILINE))
    assert listed == {file.name for file in (root / "docs").glob("*.md")}
