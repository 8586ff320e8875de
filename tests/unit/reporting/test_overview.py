"""What the first page and DVC say of a run: groups of methods, five numbers, a flat headline, and the data of plots."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifacts import read_json
from pipeline.reporting.overview import Group, Line, numbers_of
from pipeline.reporting.site import Page
from pipeline.reporting.site.menu import GROUPS, grouped
from stages import report
from tests.made import TRAINED, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The report of a small made-up run."""
    root = tmp_path_factory.mktemp("run")
    arguments = make_run(root, examples=12, layers=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root / "reports", arguments


def test_the_headline_is_flat_and_has_each_methods_mean(made: tuple[Path, dict[str, Any]]) -> None:
    headline, metrics = read_json(made[0] / "headline.json"), read_json(made[0] / "metrics.json")
    trained, unseen = {"base", "lora", "svf", "loreft", "csreft"}, {"best_lora", "prompt", "classifier", "few_shot"}
    assert set(headline) == trained | unseen | {"base_unseen", "claims"}
    assert headline["claims"] == metrics["claims"]["holds"]
    for name, table, row in (("base", "table1", "base"), ("svf", "table1", "svf"), ("base_unseen", "table2", "base")):
        mean = metrics[table][row]["mean_over_tasks"]["mean"]
        assert headline[name] == pytest.approx(100 * mean, abs=0.01)


def test_the_first_page_begins_with_its_numbers_and_the_chart(made: tuple[Path, dict[str, Any]]) -> None:
    page = (made[0] / "index.html").read_text()
    headline = read_json(made[0] / "headline.json")
    begin = page[page.index("</h1>") : page.index("<h2>")]
    numbers = re.findall(r'<li><a href="([^"]+)">([^<]+)</a> ([^<]+)</li>', begin)
    assert len(numbers) == 5 and "figures/methods.svg" in begin
    assert [value for _, value, _ in numbers[:1]] == [f"{headline['base']:.1f} %"]
    best = max(headline[row] for row in ("lora", "svf", "loreft", "csreft"))
    assert numbers[1][1] == f"{best:.1f} %" and "points from the base model" in numbers[1][2]
    assert numbers[4][1].startswith(f"{headline['claims']} of ")
    told = re.sub(r"<[^>]*>", " ", begin)
    assert len(re.findall(r"[.!?](?:\s|$)", told)) <= 4  # sentences: of the figure's caption alone


def line(row: str, mean: float) -> Line:
    return Line(row, row.upper(), {"mean": mean, "diff": 0.1, "diff_low": 0.0, "diff_high": 0.2}, "x.html")


def test_what_shares_the_highest_mean_is_named_together() -> None:
    lines = (line("base", 0.9), line("a", 0.60667), line("b", 0.5), line("c", 0.606671))
    number = numbers_of([Group("unseen", ("one", "two"), lines)], [])[1]
    assert number.value == "60.7 %"
    assert number.about == (
        "right: A and C, the highest mean on unseen tasks (one and two); +10.0 [0.0, +20.0] points from the base model"
    )
    alone = numbers_of([Group("own", ("one",), lines[:1])], [])
    assert [one.value for one in alone] == ["90.0 %"]


def test_the_claims_stand_there_with_marks(made: tuple[Path, dict[str, Any]]) -> None:
    page = (made[0] / "index.html").read_text()
    counts = read_json(made[0] / "metrics.json")["claims"]
    for mark, verdict in (("✓", "holds"), ("✗", "does not hold"), ("~", "undecided"), ("?", "not interpretable")):
        shown = page.count(f'title="{verdict}">{mark}<')
        assert shown == counts[verdict.replace(" ", "_")]


def test_the_data_of_the_plots_are_those_of_the_run(made: tuple[Path, dict[str, Any]]) -> None:
    def read(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((made[0] / f"plots/{name}.csv").read_text())))

    metrics = read_json(made[0] / "metrics.json")
    line = next(one for one in read("accuracy") if (one["table"], one["task"], one["row"]) == ("table1", "sums", "svf"))
    cell = metrics["table1"]["svf"]["sums"]
    assert [float(line[key]) for key in ("accuracy", "low", "high")] == pytest.approx(
        [100 * cell[key] for key in ("mean", "low", "high")], abs=1e-3
    )
    assert {one["training"] for one in read("rewards")} >= {f"svf-{task}-0" for task in TRAINED.values()}
    assert all(one["reward"] and one["step"] != "0" for one in read("rewards"))
    assert all(one["validation"] for one in read("validation"))
    assert {one["training"] for one in read("losses")} >= {f"lora-{task}-0" for task in TRAINED.values()}
    mixed = {one["search"] for one in read("alpha")}
    assert mixed and all(name.startswith("few_shot") for name in mixed)


def test_dvc_draws_every_file_of_the_plots_and_shows_the_headline_alone(
    made: tuple[Path, dict[str, Any]], root: Path
) -> None:
    import yaml

    graph = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    drawn = {
        Path(path).name: column for plot in graph["plots"] for one in plot.values() for path, column in one["y"].items()
    }
    assert set(drawn) == {path.name for path in (made[0] / "plots").iterdir()}
    for plot in graph["plots"]:
        for one in plot.values():
            ((path, column),) = one["y"].items()
            head = (made[0] / "plots" / Path(path).name).read_text().splitlines()[0].split(",")
            template = json.loads((root / f".dvc/plots/{one['template']}.json").read_text(encoding="utf-8"))
            fields = set(re.findall(r'"field": "([a-z_]+)"', json.dumps(template))) - {"rev", "coefficient"}
            assert {one["x"], column, *fields} <= set(head), path
    assert [list(one) for one in graph["stages"]["report"]["do"]["metrics"]] == [["reports/headline.json"]]


def page(path: str) -> Page:
    return Page(path, path, path, "x.html", {})


def test_the_menu_is_in_the_papers_order_whatever_the_pages_came_in() -> None:
    pages = [page(f"site/{name}.html") for name in ("table10", "mine", "csreft", "table2", "completions", "glue")]
    pages += [page("runs/index.html"), page("index.html")]
    menu = [(name, [one.path for one in members]) for name, members in grouped(pages)]
    assert menu == [
        ("", ["index.html"]),
        ("Transformer²", ["site/table2.html", "runs/index.html", "site/table10.html"]),
        ("ReFT", ["site/glue.html"]),
        ("CS-ReFT", ["site/csreft.html"]),
        ("More tables", ["site/mine.html"]),
        ("Answers", ["site/completions.html"]),
    ]
    keys = [key for keys in GROUPS.values() for key in keys]
    assert len(keys) == len(set(keys))
