"""The notebook of the documentation runs on a project as after a run, and is kept without what it printed."""

import json

import pytest

from tests.project import make_project

NOTEBOOK = "docs/notebooks/experts.ipynb"


@pytest.fixture(scope="module")
def cells(root):
    return [
        cell
        for cell in json.loads((root / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]


def test_it_is_kept_without_outputs(cells):
    assert cells
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]


def test_its_cells_run_in_their_order(cells, tmp_path, monkeypatch, capsys):
    project = make_project(tmp_path / "project")
    below = project.folder / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)  # it finds the project above
    names: dict = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert names["expert"].text != names["base"].text
    assert "layer " in said and "matrices" in said
    alone = names["assistant"].generate(names["question"], {"sums": 1.0}, max_new_tokens=16)
    assert alone.text == names["plain"].text
