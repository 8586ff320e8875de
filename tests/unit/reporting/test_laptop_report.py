"""The default profile's report has all ten tables and all figures of Transformer², and no cell of them is empty.

The run is made up, of exactly the cells and trainings of ``laptop``: what is checked is that the profile asks for
everything the report shows, not any number.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.artifacts import write_json
from pipeline.core.config import read_params, settings
from pipeline.reporting.planned import read_plan
from stages import report
from tests.made import STEPS, make_run

PROFILE = Path(__file__).resolve().parents[3] / "pipeline/profiles/laptop.yaml"
COMPARED = ["table1", "table2", "table4", "table5", "table7", "table8", "table9", "table10", "searchers", "csreft"]
FIGURES = ["figure4", "figure6", "figure7", "figure9", "figure10", "figure11"]
EMPTY = ("", "–", "nan")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made-up run of ``laptop``."""
    root = tmp_path_factory.mktemp("laptop")
    changes = {"report": {"resamples": 50}}
    arguments = make_run(root, examples=30, params=read_params(PROFILE), changes=changes)
    plan = read_plan(arguments["plan"])
    for stage in (*(f"dispatch@{key}" for key in plan.dispatch), *(f"generate@{key}" for key in plan.cells)):
        record = {"stage": stage, "seconds": 9.5, "peak_memory_bytes": 2**30, "started_unix_seconds": 1}
        record |= {"host": {"cores": 2, "machine": "x86_64"}, "arguments": {}}
        write_json(root / f".selfadapt/runs/{stage}.json", record)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root / "reports"


class Cells(HTMLParser):
    """The texts of a page's table cells."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.cells, self._open = list[str](), False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self.cells.append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells[-1] += data


def markdown_cells(text: str) -> list[str]:
    """The cells of a text's tables, but each table's upper left corner."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = [cell for line in table.splitlines() for cell in line.strip("|").split("|")]
        found += [cell.strip() for cell in cells[1:]]
    return found


@pytest.mark.parametrize("key", COMPARED)
def test_every_row_of_a_table_has_every_task_with_its_interval(made: Path, key: str) -> None:
    frame = pd.read_csv(made / f"tables/{key}.csv")
    rows, tasks = set(frame["row"]), set(frame["task"])
    assert len(frame) == len(rows) * len(tasks) and len(rows) > 2
    assert frame[["mean", "low", "high", "n"]].notna().all(axis=None)
    assert frame.loc[frame["row"] != "base", ["diff", "diff_low", "diff_high", "verdict"]].notna().all(axis=None)


@pytest.mark.parametrize("key", [*COMPARED, "table6", "searches"])
def test_no_cell_of_a_table_is_empty(made: Path, key: str) -> None:
    for cells in (
        markdown_cells((made / f"tables/{key}.md").read_text()),
        [" ".join(cell.split()) for cell in Cells((made / f"site/{key}.html").read_text()).cells],
    ):
        assert len(cells) > 8 and not set(EMPTY) & set(cells)


def test_table_3_has_every_unseen_task_and_both_passes(made: Path) -> None:
    text = (made / "runs/table3.md").read_text()
    assert not set(EMPTY) & set(markdown_cells(text))
    assert "Of the second pass, the first by a prompt costs here" in text
    assert len(pd.read_csv(made / "runs/table3.csv")) == 6


@pytest.mark.parametrize("key", [key for key in COMPARED if key != "csreft"])
def test_every_table_has_the_papers_numbers_beside(made: Path, key: str) -> None:
    frame = pd.read_csv(made / f"tables/{key}.csv")
    assert frame["paper"].notna().any()


def test_every_table_says_something_of_the_papers_claim(made: Path) -> None:
    linked = set(re.findall(r'href="([^"#]*)"', (made / "index.html").read_text()))
    assert {f"site/{key}.html" for key in (*COMPARED, "table6", "dispatch")} <= linked
    for key in COMPARED:
        said = re.findall(r"^- (.*)$", (made / f"tables/{key}.md").read_text(), re.MULTILINE)
        assert any(re.search(r"in this run|here|against", sentence) for sentence in said), key


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_and_shown(made: Path, name: str) -> None:
    assert "<path" in (made / f"figures/{name}.svg").read_text()
    pages = [path.read_text() for path in (made / "site").glob("*.html")]
    assert any(f"figures/{name}.svg" in page for page in pages)


def test_every_method_has_its_point_on_the_trained_tasks(made: Path) -> None:
    metrics = json.loads((made / "metrics.json").read_text())
    for task in ("sums", "functions", "kinds"):
        measured = {
            row for table in ("table1", "table7", "csreft") for row, one in metrics[table].items() if task in one
        }
        assert {"base", "lora", "dora", "ia3", "svf", "loreft", "csreft"} <= measured


def test_table_6_has_our_settings_beside_the_papers(made: Path) -> None:
    table = pd.read_csv(made / "tables/table6.csv").set_index("setting")
    params = read_params(PROFILE)
    rollouts = params["reinforce"]["batch"] * params["reinforce"]["samples"]
    assert table.loc["svf.global_batch"].tolist() == [str(rollouts), "256"]
    assert table.loc["svf.z_init_mean"].tolist() == ["1.0", "0.1"]
    assert table.loc["lora.modules"].tolist() == ["query and value projections"] * 2
    note = (made / "tables/table6.md").read_text()
    said = re.search(r"Of the (\d+) settings that the paper names, (\d+) are the same", note)
    same = (table["this run"] == table["paper"]).sum()
    assert (
        said
        and (int(said[1]), int(said[2])) == (len(table), same)
        and "svf.global_batch" in note.partition("others:")[2]
    )


def test_what_is_trained_on_one_task_has_one_budget_and_says_it(made: Path) -> None:
    batch = settings(read_params(PROFILE), "dora.training")["batch"]
    text = (made / "tables/table7.md").read_text()
    assert "different budgets" not in text
    assert f"{STEPS} steps × {batch} prompts = {STEPS * batch} prompts seen" in text
