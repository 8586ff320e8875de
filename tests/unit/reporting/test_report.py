"""The report of a made-up run: its structure, its words, its bytes."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

from pipeline.core.artifacts import digest
from pipeline.core.errors import UserError
from pipeline.evaluation.verdicts import VERDICTS
from pipeline.reporting import wording
from pipeline.reporting.planned import RunSettings, read_plan
from pipeline.reporting.read import read_needs
from pipeline.reporting.site import read_answers
from stages import report
from tests.made import PARAMS, RULES, TRAINED, make_run, outputs, plain


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A made-up run and its report, with two seeds of every expert."""
    root = tmp_path_factory.mktemp("run")
    arguments = make_run(root, changes={"seeds": [0, 1]})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root, arguments


def test_metrics_have_every_cell_with_its_interval_and_its_difference(made: tuple[Path, dict[str, Any]]) -> None:
    metrics = json.loads((made[0] / "reports/metrics.json").read_text())
    svf = metrics["table1"]["svf"]
    assert list(svf) == sorted([*TRAINED.values(), "mean_over_tasks"])
    cell = svf["sums"]
    assert {"mean", "low", "high", "n", "diff", "diff_low", "diff_high", "seeds"} <= set(cell)
    assert cell["n"] == 40 and cell["seeds"] == 2
    assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1
    assert cell["diff"] == pytest.approx(cell["mean"] - metrics["table1"]["base"]["sums"]["mean"], abs=2e-6)
    assert "diff" not in metrics["table1"]["base"]["sums"]
    assert set(metrics["table2"]) == {"base", "best_lora", "prompt", "classifier", "few_shot"}
    assert set(metrics["csreft"]) == {"base", "loreft", "csreft"}
    assert set(metrics["dispatch"]["classifier"]) == {"trained", "unseen"}
    assert metrics["parameters"]["skills/csreft-0"] == {"parameters": 222000, "parameters_without_router": 55344}
    assert {name: right["mean"] for name, right in metrics["rules"]["queue"].items()} == pytest.approx(RULES)
    best = max(RULES.values())
    assert cell["rule_mean"] == best and cell["rule_diff"] == pytest.approx(cell["mean"] - best, abs=2e-6)
    assert set(metrics["verdicts"]) == set(VERDICTS) and sum(metrics["verdicts"].values()) > 10
    answers = metrics["answers"]["queue-prompt-0"]
    assert (answers["n"], answers["cut"], answers["unread"], answers["read_n"]) == (40, 0.025, 0.025, 38)


def test_metrics_hold_nothing_that_varies_by_run(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "reports/metrics.json").read_text()
    assert not re.search("second|memory|host|core", text)
    assert not re.search(r"\d\.\d{7}", text)


def test_a_run_without_their_cells_has_none_of_the_reft_papers_tables(made: tuple[Path, dict[str, Any]]) -> None:
    names = {path.stem for path in (made[0] / "reports/tables").iterdir()}
    assert not {"commonsense8", "arithmetic4", "glue", "alpaca_eval_judged"} & names
    assert "heads" not in json.loads((made[0] / "reports/metrics.json").read_text())


def pages_of(root: Path) -> dict[str, str]:
    """The pages by their paths in the report's folder."""
    folder = root / "reports"
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.html"))}


def test_the_pages_ask_nothing_of_the_network(made: tuple[Path, dict[str, Any]]) -> None:
    texts = [*pages_of(made[0]).values(), *(path.read_text() for path in (made[0] / "reports/site").glob("*.*s"))]
    assert len(texts) > 12
    for text in texts:
        assert "//" not in re.sub(r"^ *// .*$", "", text, flags=re.MULTILINE)  # but comments
        assert "@import" not in text and "url(" not in text and "fetch(" not in text


class Read(HTMLParser):
    """What a page says: its text, ids and links; and whether every tag that opens is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.links = "", list[str]()
        self.ids = list[str]()
        self._open = list[str]()
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img"):
            self._open.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_pages_are_well_formed_and_say_what_the_run_was_about(made: tuple[Path, dict[str, Any]]) -> None:
    pages = {path: Read(page) for path, page in pages_of(made[0]).items()}
    for path, words in (
        (
            "index.html",
            ("Toy-135M", "An SVF expert is more accurate", "of the papers' claims that were measured hold here"),
        ),
        ("site/csreft.html", ("without router 55\u202f344, 0.0411 %",)),
        ("site/table1.html", ("paper: GSM8K, Llama-3-8B-Instruct", "79.15 %", "unparsed", "2 seeds")),
        ("site/table2.html", ("best rule without a model", "the first choice", "few-shot CEM")),
        ("site/answers.html", ("queue-prompt-0", "picked, % by position", "Cut: ended by the token limit")),
        ("site/budgets.html", ("experts/svf-sums-0", "prompts seen")),
        ("site/learning.html", ("prompts with mixed rewards, mean", "sum of rates")),
        ("site/alpha.html", ("After its first generation, 6 of 6 searches for α found a better mixture",)),
        ("site/dispatch.html", ("A classification expert names a prompt's domain",)),
        ("site/claims.html", ("Toy-135M", "(IA)³", "by pair and task")),
        ("site/settings.html", ("svf.modules", "reft.training.learning_rate", "compute.threads")),
        ("runs/index.html", ("generate@groceries-prompt-0", "What the first pass costs")),
    ):
        for word in words:
            assert word in re.sub("[ \n]+", " ", pages[path].text), (path, word)
    for page in pages.values():
        assert len(page.ids) == len(set(page.ids))


def test_every_link_leads_somewhere(made: tuple[Path, dict[str, Any]]) -> None:
    folder = made[0] / "reports"
    pages = {path: Read(page) for path, page in pages_of(made[0]).items()}
    linked = set()
    for path, page in pages.items():
        for link in page.links:
            target, _, part = link.partition("#")
            if target.startswith("data:"):
                continue
            found = (folder / path).parent.joinpath(target).resolve() if target else folder / path
            assert found.is_file(), f"{path} links to {link}"
            name = str(found.relative_to(folder.resolve()))
            linked.add(name)
            if "task=" in part:
                assert name == "site/completions.html"
                values = dict(pair.split("=") for pair in part.split("&"))
                answers = read_answers((folder / f"site/data/{values['task']}.js").read_text())
                assert values["cell"] in answers["cells"]
            elif part:
                assert part in pages[name].ids, f"{path} links to {link}"
    assert set(pages) <= linked


def test_every_cell_leads_to_its_completions_and_its_run(made: tuple[Path, dict[str, Any]]) -> None:
    pages = pages_of(made[0])
    for name, cell in read_plan(made[1]["plan"]).cells.items():
        page = pages[f"site/{cell.tables[0]}.html"]
        assert f"runs/index.html#score@{name}" in page
        assert cell.seed or f"completions.html#task={cell.task}&amp;cell={name}" in page


def test_completions_are_kept_whole_and_as_they_are(made: tuple[Path, dict[str, Any]]) -> None:
    answers = read_answers((made[0] / "reports/site/data/queue.js").read_text())
    assert len(answers["prompts"]) == 40 and answers["domain"] == "reasoning"
    assert answers["prompts"][3] == ["queue-3", "queue 3: is <b>1 & 2</b> less than 4?\nThink.", "yes <end>"]
    scores = pd.read_parquet(made[1]["scores"] / "queue-prompt-0.parquet")
    kept = answers["cells"]["queue-prompt-0"]
    assert [right for _, _, right in kept["answers"]] == [int(one) for one in scores["correct"]]
    parsed = [one if isinstance(one, str) else None for one in scores["parsed"]]
    assert [read for _, read, _ in kept["answers"]] == parsed
    assert (kept["row"], kept["by"], kept["seed"]) == ("prompt", "SVF mixed by prompt", 0)


def test_what_varies_from_run_to_run_stands_in_one_folder(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arguments = made
    (tmp_path / "reports").mkdir()
    monkeypatch.chdir(tmp_path)  # where no stage ran
    report.run(**{**arguments, **outputs(tmp_path / "reports")})
    for path in sorted((root / "reports").rglob("*.*")):
        name = path.relative_to(root)
        if path.is_file() and name.parts[1] != "runs":
            assert (tmp_path / name).read_bytes() == path.read_bytes(), name
    page = Read((tmp_path / "reports/runs/index.html").read_text())
    assert "all outputs were taken from a cache" in page.text
    assert "score@groceries-prompt-0" in page.ids


def test_table_3_sets_the_first_pass_against_the_second(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "reports/runs/table3.csv").read_text().splitlines()
    assert text[0].startswith("task,first pass by,prompts,")
    # 260.5 seconds over the 240 prompts of six tasks, 320.5 over the 40 of its own; the paper's 13 % are MATH's.
    assert text[1] == "groceries,Prompt to the base model,40,1.0854,8.0125,13.5,13"
    assert text[2] == "groceries,Classification expert,40,,,,not timed"  # did not run here


def test_the_stages_behind_a_number_are_those_the_lock_file_names(tmp_path: Path) -> None:
    stages = {
        "score@a": {"deps": [{"path": "completions/a"}], "outs": [{"path": "scores/a"}]},
        "generate@a": {"deps": [{"path": "experts/x/0"}, {"path": "code.py"}], "outs": [{"path": "completions/a"}]},
        "train": {"outs": [{"path": "experts/x"}]},
        "train_otherwise": {"outs": [{"path": "experts/x"}]},
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    needs = read_needs(tmp_path / "dvc.lock", {"train_otherwise": {}, "train": {}}, stages)
    assert needs["score@a"] == ["generate@a"] and needs["generate@a"] == ["train"]
    needs = read_needs(tmp_path / "dvc.lock", {"train": {}, "train_otherwise": {}}, stages)
    assert needs["generate@a"] == ["train_otherwise"]
    needs = read_needs(tmp_path / "dvc.lock", {"train": {}, "train_otherwise": {}}, set(stages) - {"train_otherwise"})
    assert needs["generate@a"] == ["train"], "a stage of another plan made nothing of this one"
    assert read_needs(tmp_path / "nothing", {}, stages) == {}


def test_two_renderings_are_the_same_bytes(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arguments = made
    monkeypatch.chdir(root)
    report.run(**{**arguments, **outputs(tmp_path / "reports")})
    assert digest(tmp_path / "reports") == digest(root / "reports")


def test_figures_are_svg_without_a_date_and_fit_light_and_dark(made: tuple[Path, dict[str, Any]]) -> None:
    figures = sorted((made[0] / "reports/figures").glob("*.svg"))
    names = {figure.stem for figure in figures}
    assert {"figure4", "figure6", "figure7", "gates", "losses", "table1-accuracy", "table2-accuracy"} <= names
    alpha = (made[0] / "reports/figures/figure7.svg").read_text()
    assert "functions-0" in alpha and "lora" not in alpha  # selecting a LoRA mixes nothing
    for figure in figures:
        text = figure.read_text()
        ElementTree.fromstring(text)
        assert "dc:date" not in text and "#010203" not in text and "prefers-color-scheme:dark" in text


def test_the_order_of_the_cells_changes_no_number(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, arguments = made
    plan = yaml.safe_load(arguments["plan"].read_text())
    plan["plan"]["cells"] = dict(reversed(plan["plan"]["cells"].items()))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    settings = arguments["settings"]
    turned = settings.model_copy(update={"tasks": dict(reversed(settings.tasks.items()))})
    monkeypatch.chdir(root)
    report.run(**{**arguments, **outputs(tmp_path), "settings": turned, "plan": tmp_path / "plan.yaml"})
    assert (tmp_path / "metrics.json").read_bytes() == (root / "reports/metrics.json").read_bytes()


def test_tables_come_as_markdown_and_csv(made: tuple[Path, dict[str, Any]]) -> None:
    folder = made[0] / "reports/tables"
    names = {path.name for path in folder.iterdir()}
    tables_of = ("table1", "table2", "csreft", "settings", "parameters", "answers", "budgets", "learning", "claims")
    assert names == {f"{name}.{suffix}" for name in tables_of for suffix in ("md", "csv")}
    frame = pd.read_csv(folder / "table1.csv")
    metrics = json.loads((made[0] / "reports/metrics.json").read_text())
    line = frame[(frame["row"] == "svf") & (frame["task"] == "sums")].iloc[0]
    assert line["mean"] == pytest.approx(metrics["table1"]["svf"]["sums"]["mean"], abs=1e-6)
    assert line["paper"] == pytest.approx(0.7915) and line["paper_model"] == "Llama-3-8B-Instruct"
    text = (folder / "table1.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):  # this run's, and the paper's
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_run_with_few_cells_is_reported_as_far_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = plain(PARAMS)
    params["tables"] = {"table1": {"tasks": ["sums"], "rows": ["base", "svf"]}}
    arguments = make_run(tmp_path, examples=3, layers=2, params=params)
    monkeypatch.chdir(tmp_path / "data")  # and no stage ran here
    report.run(**arguments)
    metrics = json.loads(arguments["metrics"].read_text())
    assert set(metrics) == {"table1", "rules", "answers", "verdicts", "parameters", "claims"}
    assert [path.name for path in arguments["adapters"]] == ["experts"]
    assert not {"figure6.svg", "figure7.svg", "gates.svg"} & {path.name for path in arguments["figures"].iterdir()}


def test_a_run_without_a_claims_rows_says_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = plain(PARAMS)
    params["tables"] = {"table1": {"tasks": ["sums"], "rows": ["base", "lora"]}}
    arguments = make_run(tmp_path, examples=3, params=params)
    monkeypatch.chdir(tmp_path)
    report.run(**arguments)
    claims = json.loads(arguments["metrics"].read_text())["claims"]
    assert (
        claims["holds"] + claims["does_not_hold"] <= 1 < claims["not_measured"]
    )  # but of parameters, of which it has LoRA's
    assert "An SVF expert is more accurate than the base" not in arguments["page"].read_text()


def test_settings_are_read_from_the_whole_file_and_resolved(made: tuple[Path, dict[str, Any]]) -> None:
    settings = made[1]["settings"]
    assert settings.section("csreft")["training"] == settings.section("lora")["training"]
    assert settings.section("nothing") == {} and settings.recipe("svf", "svf", "reinforce")["training"]["samples"] == 3
    params = plain(PARAMS)
    del params["report"]["samples"]
    with pytest.raises(UserError, match="but 'report.samples' is missing; add it"):
        RunSettings.read(params, {})


def test_numbers_are_written_as_a_person_reads_them() -> None:
    written = [wording.cell_text(value) for value in (None, "x", 118080, 20.5, 0.041144, 12345.6)]
    assert written == ["–", "x", "118\u202f080", "20.5", "0.04114", "12\u202f346"]
    assert (wording.percent(0.5765), wording.signed(-0.05), wording.signed(0.05)) == ("57.6", "−5.0", "+5.0")
