"""The report's tables of variants: what is claimed of them, the paper's numbers beside, figures and listings."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from pipeline.reporting import papers
from pipeline.reporting.read import read_published
from stages import report
from tests.made import PUBLISHED, make_run

DOMAINS = {"queue": "reasoning", "groceries": "math"}


@pytest.mark.parametrize(
    ("key", "row", "task", "percent"),
    [
        ("table5", "shuffled", "queue", 70.82),
        ("table5", "cross", "groceries", 12.65),
        ("table8", "few_shot_5", "queue", 82.38),
        ("table8", "ia3_1000_steps_20", "queue", 79.61),
        ("table8", "base", "queue", 80.63),
        ("table8", "few_shot", "queue", 82.61),
        ("table10", "few_shot", "queue", 82.61),
        ("table9", "ordered", "queue", 81.78),
        ("table10", "few_shot_light", "queue", 82.08),
        ("searchers", "uniform", "groceries", 24.47),
    ],
)
def test_the_papers_numbers_stand_under_our_rows(key: str, row: str, task: str, percent: float) -> None:
    found, benchmarks = papers.published_of(key, DOMAINS, DOMAINS, read_published(PUBLISHED))
    assert found[row, task] == pytest.approx(percent / 100)
    assert task in benchmarks
    assert papers.published_of(key, DOMAINS, DOMAINS, {})[0] == {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made-up run with a search of its own, spectra, LoRA by rewards, and cells on another model."""
    root = tmp_path_factory.mktemp("run")
    changes = {
        "bases": {"tuned": {"source": "merge"}},
        "rows": {
            "few_shot_3": {
                "method": "svf",
                "from": "adapt",
                "strategy": "few_shot",
                "search": {"like": "few_shot", "shots": 3},
            },
            "lora-reward": {"method": "lora", "from": "train_reinforce"},
            "ordered": {"method": "svf", "from": "transfer", "order": "ordered"},
            "shuffled": {"method": "svf", "from": "transfer", "order": "shuffled"},
        },
        "tables": {
            "table4": {"tasks": ["sums"], "rows": ["base", "svf", "lora-reward"]},
            "table8": {"tasks": ["queue"], "rows": ["base", "few_shot_3"]},
            "table9": {"base": "tuned", "tasks": ["sums"], "rows": ["base", "ordered", "shuffled"]},
        },
        "spectra": {"base": "svf"},
    }
    arguments = make_run(root, layers=2, changes=changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root / "reports"


def test_shuffled_stands_beside_ordered_with_the_model_they_were_moved_to(made: Path) -> None:
    frame = pd.read_csv(made / "tables/table9.csv")
    assert list(dict.fromkeys(frame["row"])) == ["base", "ordered", "shuffled"]
    ordered = frame[frame["row"] == "ordered"].iloc[0]
    assert ordered["n"] == 40 and ordered["low"] <= ordered["mean"] <= ordered["high"]
    assert ordered["paper"] == pytest.approx(0.4261) and ordered["paper_model"] == "Mistral-7B-Instruct-v0.3"
    page = (made / "site/table9.html").read_text()
    assert "is &#39;tuned&#39;, Toy-135M itself with a LoRA on sums, functions, oldest merged" in page
    assert "moved experts do better in order than shuffled" in page and "Mistral-7B-Instruct-v0.3" in page


def test_the_figures_of_the_analyses_fit_light_and_dark(made: Path) -> None:
    for name in ("figure9", "figure10", "changes", "searches"):
        text = (made / f"figures/{name}.svg").read_text()
        ElementTree.fromstring(text)
        assert "#010203" not in text and "prefers-color-scheme:dark" in text
    assert "lora-reward-sums-0" in (made / "figures/figure9.svg").read_text()
    assert "figures/figure10.svg" in (made / "site/spectra.html").read_text()


def test_a_search_is_listed_with_what_it_ran_and_found_and_not_mixed_into_figure_7(made: Path) -> None:
    listed = pd.read_csv(made / "tables/searches.csv").set_index("adaptation")
    other = listed.loc["SVF mixed by CEM on 3 prompts"]
    assert other["task"] == "queue" and other["prompts given"] == 3 and other["prompts run"] == 80
    assert "[" in other["Δ from base"]
    usual = listed.loc["SVF mixed by few-shot CEM"]
    assert set(usual["task"]) == {"groceries", "repairs", "queue"} and set(usual["prompts given"]) == {10}
    text = (made / "figures/figure7.svg").read_text()
    assert '"Coefficients of the experts for groceries, repairs, queue"' in text
    assert "few_shot_3" in (made / "figures/searches.svg").read_text()
