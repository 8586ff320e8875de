"""The Python entry, as the README shows it."""

import re

import pytest

import selfadapt
from selfadapt import Assistant, UserError
from tests.project import make_project

MARKER = "<!-- the Python entry -->"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


def fenced(text: str) -> str:
    """The block of Python behind the marker."""
    found = re.match(r"\s*```python\n(.*?)```", text.partition(MARKER)[2], re.DOTALL)
    assert found, "expected a block of Python behind the marker"
    return found[1]


def test_the_readme_s_snippet_runs_in_under_ten_lines(root, project, monkeypatch, capsys):
    readme = (root / "README.md").read_text(encoding="utf-8")
    if MARKER not in readme:
        pytest.skip(f"README.md has no block behind {MARKER}")
    snippet = fenced(readme)
    assert len([line for line in snippet.splitlines() if line.strip()]) < 10
    monkeypatch.chdir(project.folder)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_package_s_own_example_runs(project, monkeypatch, capsys):
    example = (selfadapt.__doc__ or "").split("\n\n")[1:3]
    code = "\n".join(line.removeprefix("    ") for part in example for line in part.splitlines())
    monkeypatch.chdir(project.folder)
    exec(compile(code, "selfadapt", "exec"), {})
    assert capsys.readouterr().out


def test_an_answer_can_be_streamed_and_left_in_the_middle(project):
    assistant = Assistant.open(project.folder)
    for _ in assistant.stream("def", "expert:sums", max_new_tokens=50):
        break
    whole = assistant.generate("def", "expert:sums", max_new_tokens=8)
    streamed = [news for news in assistant.stream("def", "expert:sums", max_new_tokens=8) if isinstance(news, str)]
    assert "".join(streamed) == whole.text
    assert assistant.engine.load == (0, 0)


def test_a_chat_of_several_turns_is_read_whole(project):
    assistant = Assistant.open(project.folder)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "def"},
        {"role": "assistant", "content": "f(x)"},
        {"role": "user", "content": "def"},
    ]
    assert assistant.generate(turns, max_new_tokens=4).prompt_tokens > assistant.generate("def").prompt_tokens


@pytest.mark.parametrize("prompt", ["", " ", [], None, 3, [{"role": "user"}], [{"role": "x", "content": "y"}], ["x"]])
def test_what_is_no_prompt_is_one_sentence(project, prompt):
    with pytest.raises(UserError, match="expected"):
        Assistant.open(project.folder).generate(prompt)
