"""A change reruns what can feel it, and nothing else."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.code import Code, what_it_does
from tests.graph.code import ROOT

SOURCE = '''"""A module.

Of two paragraphs.
"""

import math  # the library


class Circle:
    """It is round."""

    radius: float = 1.0

    def area(self) -> float:
        """In square units."""
        # the formula
        return math.pi * self.radius**2


TEXT = """first

# no comment
last"""
NAME = f"{TEXT!r:>{3}} # neither"
'''
STRIPPED = '''import math


class Circle:

    radius: float = 1.0

    def area(self) -> float:
        return math.pi * self.radius**2


TEXT = """first

# no comment
last"""
NAME = f"{TEXT!r:>{3}} # neither"
'''


def without_blank_lines(text: str) -> str:
    head, tail = text.split('TEXT = """first')
    return "\n".join(line for line in head.split("\n") if line.strip()) + '\nTEXT = """first' + tail.rstrip("\n")


def test_comments_docstrings_and_blank_lines_do_nothing() -> None:
    assert what_it_does(SOURCE) == without_blank_lines(STRIPPED)
    assert what_it_does('"""Only words."""\n\n# and a comment\n') == ""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("It is round.", "It is a curve.", True),
        ("# the formula", "# π r²", True),
        ("\n\n\nclass", "\nclass", True),
        ("  # the library", "", True),
        ("radius**2", "radius**3", False),
        ("# no comment", "# a comment", False),
        ("first\n\n", "first\n", False),
        ("# neither", "# either", False),
        ("    def area", "    @property\n    def area", False),
    ],
)
def test_what_changes_a_fingerprint(old: str, new: str, same: bool) -> None:
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert (what_it_does(changed) == what_it_does(SOURCE)) is same


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's code, to be changed."""
    for name in ("pipeline", "stages", "selfadapt"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def changed_units(root: Path, path: str, old: str, new: str) -> set[str]:
    """The units whose fingerprint differs once ``old`` is ``new`` in a file."""
    before = Code(root).units()
    file = root / path
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    after = Code(root).units()
    return {name for name in after if after[name] != before.get(name)}


def test_a_docstring_of_the_decode_loop_changes_nothing(copy: Path) -> None:
    path = "pipeline/model/decoding/answer.py"
    assert changed_units(copy, path, '"""', '"""Said otherwise: ') == set()
    assert changed_units(copy, path, "\n\n", "\n\n# a comment\n") == set()


def test_one_scorer_changes_its_tasks_alone(copy: Path) -> None:
    before = changed_units(copy, "pipeline/scoring/choices/__init__.py", "\n\n\n", "\n\n\nCHANGED = 1\n\n\n")
    tasks = {name for name in before if name.startswith("tasks/")}
    assert {"tasks/kinds", "tasks/uses", "tasks/arc_easy"} <= tasks
    assert not {"tasks/sums", "tasks/functions", "tasks/math"} & tasks
    assert not {name for name in before if name.startswith(("methods/", "adaptation/"))}
    assert not {"stages/generate", "stages/train_svf", "stages/score"} & before


def test_the_splits_change_what_reaches_them(copy: Path) -> None:
    changed = changed_units(copy, "pipeline/data/splits.py", "PATIENCE = 20_000", "PATIENCE = 30_000")
    assert changed == {"stages/prepare", "stages/prepare_own", "stages/fetch"}


def test_a_template_belongs_to_the_pages_and_a_started_script_to_its_scorer(copy: Path) -> None:
    pages = changed_units(copy, "pipeline/reporting/site/templates/base.html", "<", " <")
    assert "stages/report" in pages
    assert "stages/generate" not in pages
    worker = changed_units(copy, "pipeline/scoring/code/worker.py", "import types", "import abc, types")
    assert "tasks/functions" in worker
    assert "tasks/sums" not in worker


def test_the_hash_is_what_it_always_was(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/circle.py").write_text(SOURCE, encoding="utf-8")
    assert Code(tmp_path).fingerprint("pipeline.circle") == "53e0ec3808c55ef0 pipeline/circle.py\n"


def other_pythons() -> list[str]:
    """The interpreters on this machine that the project supports, one a version."""
    named = [found for minor in range(11, 20) if (found := shutil.which(f"python3.{minor}"))]
    managed = [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))]
    ask = "import sys; print(sys.version_info[:2] if sys.version_info >= (3, 11) else '')"
    answers = {path: subprocess.run([path, "-c", ask], capture_output=True, text=True) for path in [*named, *managed]}
    versions = {answer.stdout.strip(): path for path, answer in answers.items() if answer.returncode == 0}
    return [path for version, path in versions.items() if version]


def test_every_python_finds_the_same() -> None:
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other Python is here")
    script = "import json; from pipeline.core.code import Code; print(json.dumps(Code().units()))"
    expected = Code().units()
    for python in pythons:
        answer = subprocess.run([python, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout) == expected, python
