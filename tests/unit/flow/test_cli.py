"""The command line: what it says, and what it writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.flow import profiles
from pipeline.flow.stages import problems, resolve
from selfadapt import doctor, settings

PROFILE = "# {name}: for a test.\nprofile: {name}\nseeds: [{number}]\nbases: {{base: {{source: hub}}}}\ntasks: {{}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, and two profiles to choose from."""
    texts = tmp_path / "profiles"
    texts.mkdir()
    (texts / "small.yaml").write_text(PROFILE.format(name="small", number=1))
    (texts / "large.yaml").write_text(PROFILE.format(name="large", number=2))
    monkeypatch.setattr(profiles, "FOLDER", texts)
    project = tmp_path / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text("vars: [plan.yaml]\nstages: {}\n")
    monkeypatch.chdir(project)
    return project


def test_using_a_profile_copies_it_byte_for_byte_and_leaves_nothing_else(folder: Path) -> None:
    settings.use("small")
    settings.use("large")
    assert (folder / "params.yaml").read_text() == PROFILE.format(name="large", number=2)
    assert sorted(path.name for path in folder.iterdir()) == ["dvc.yaml", "params.yaml", "plan.yaml"]


def test_using_a_profile_with_changes_says_what_they_add(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings.use("small", ["seeds=[3, 4]"])
    assert "seeds: [3, 4]" in (folder / "params.yaml").read_text()
    assert "+1 download (base)" in capsys.readouterr().out


def test_a_profile_that_cannot_be_planned_leaves_everything_as_it_was(folder: Path) -> None:
    settings.use("small")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    with pytest.raises(UserError, match="seeds"):
        settings.use("large", ["seeds=none"])
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_the_active_profile_is_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings.use("small")
    capsys.readouterr()
    settings.list_profiles()
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["large", "for", "a", "test."],
        ["*", "small", "for", "a", "test."],
    ]


def test_an_unknown_profile_is_refused_with_the_nearest_name_and_changes_nothing(folder: Path) -> None:
    settings.use("small")
    with pytest.raises(UserError, match="expected a profile, got 'lagre'; did you mean 'large'?"):
        settings.use("lagre")
    with pytest.raises(UserError, match="the profiles are: large, small"):
        settings.use("xyz")
    assert (folder / "params.yaml").read_text() == PROFILE.format(name="small", number=1)


def test_help_is_light_and_names_the_commands() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from selfadapt.cli import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "print([name for name in ('torch', 'prefect', 'dvc', 'pandas') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith("[]")
    for command in (
        "run",
        "plan",
        "graph",
        "publish",
        "ui",
        "profile",
        "doctor",
        "generate",
        "chat",
        "compare",
        "experts",
        "export",
        "serve",
    ):
        assert command in said


def test_doctor_misses_the_base_model_only_after_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert doctor._base() == "not in artifacts/base/model yet; the first run makes it"
    record = folder / ".selfadapt/runs/download@base.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(UserError, match="expected the base model in artifacts/base/model, which is not there; run"):
        doctor._base()
    model = folder / "artifacts/base/model"
    model.mkdir(parents=True)
    record.unlink()
    with pytest.raises(UserError, match="expected the base model"):  # half of it is there
        doctor._base()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"x" * 2_000_000)
    assert doctor._base() == "artifacts/base/model, 2 MB"


def test_a_mistake_is_one_sentence_and_exit_code_1(folder: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "selfadapt.cli", "profile", "use", "lptop"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert done.stderr == "error: expected a profile, got 'lptop'; did you mean 'laptop'?\n"


GRAPH = """
stages:
  write:
    foreach: ${things}
    do:
      cmd: python -m pipeline.flow write@${key} --thing ${key} --result out/${key}
      deps: [zero]
      params: ["things.${key}"]
      outs: ["out/${key}"]
"""


def test_a_graph_is_resolved_under_settings_elsewhere(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(GRAPH)
    settings = folder / "other.yaml"
    settings.write_text("things: {a: {x: 1}, b: {x: 2}}")
    first, second = resolve(settings)
    assert (first.name, second.name) == ("write@a", "write@b")
    assert first.arguments == {"thing": ["a"], "result": ["out/a"]}
    assert first.deps == {"zero"}
    assert first.outs == {"out/a"}
    assert first.params == {"things.a"}
    assert sorted(path.name for path in folder.iterdir()) == ["dvc.yaml", "other.yaml"]


def test_a_graph_that_does_not_resolve_is_one_problem(folder: Path) -> None:
    (folder / "dvc.yaml").write_text(GRAPH)
    settings = folder / "params.yaml"
    settings.write_text("thinks: {}")
    (problem,) = problems(settings)
    assert "things" in problem
    assert "\n" not in problem
    settings.write_text("things: [")
    (problem,) = problems(settings)
    assert problem.startswith("expected YAML in")
