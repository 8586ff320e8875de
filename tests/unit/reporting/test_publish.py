"""A finished run, published: what is kept, what the report shows of it, and what is refused."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from pipeline.core.artifacts import (
    digest,
    read_jsonl,
    read_tensors,
    write_json,
    write_jsonl,
    write_tensors,
    write_text,
)
from pipeline.core.errors import UserError
from pipeline.evaluation.rules import best_rule
from pipeline.flow import plan
from pipeline.reporting import publish
from pipeline.reporting.compose import published_section
from pipeline.reporting.figures import draw
from pipeline.reporting.planned import read_plan
from pipeline.reporting.published import read_answers, read_published_runs, read_rules
from pipeline.reporting.statistics import published_statistics
from pipeline.reporting.tables import learning
from pipeline.reporting.tables.listing import Listing, listing_csv, listing_markdown
from stages import report
from tests.made import PARAMS, TRAINED, make_run

CELLS = [*(f"{task}-base" for task in TRAINED.values()), *(f"{task}-svf-0" for task in TRAINED.values()), "queue-base"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """A made-up run that DVC holds to be up to date; in it, the expert on sums was rewarded in its last step only."""
    arguments = make_run(tmp_path)
    curve = tmp_path / "artifacts/curves/svf-sums-0.jsonl"
    rows = [row for row in read_jsonl(curve) if row["kl_coefficient"] == 0.1]
    for row in rows:
        row |= {"train": None if row["step"] == 0 else -1.0, "chosen": row["step"] == 0, "kl_coefficient": 0.0}
    rows[-1]["train"] = -0.9
    write_jsonl(curve, rows)
    for split in ("train", "validation", "few_shot"):
        for task in (*TRAINED.values(), "queue"):
            write_jsonl(tmp_path / f"data/tasks/{task}/{split}.jsonl", [{}] * 3 if split == "train" else [])
    (tmp_path / "artifacts/base/model").mkdir()
    (tmp_path / "artifacts/base/model/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "PAPERS", arguments["published"])
    monkeypatch.setattr(publish, "stale", lambda stages: [])
    return tmp_path, arguments


def plan_again(root: Path, changes: dict[str, Any]) -> None:
    """Other settings for the same files."""
    (root / "params.yaml").write_text(yaml.safe_dump({**PARAMS, **changes}, sort_keys=False))
    plan.update(root / "params.yaml", root / "plan.yaml")


def test_what_was_published_is_what_the_run_found(made: tuple[Path, dict[str, Any]]) -> None:
    root, arguments = made
    report.run(**arguments)
    folder = publish.publish(CELLS, None)
    assert folder == Path("reports/published/Toy-135M")
    own = json.loads(Path("reports/metrics.json").read_text())
    found = json.loads((folder / "metrics.json").read_text())
    for task in TRAINED.values():
        for row in ("base", "svf"):
            assert found["table1"][row][task] == own["table1"][row][task]
    assert set(found) == {"table1", "table2", "rules", "answers", "verdicts"}
    assert found["answers"] == {cell: own["answers"][cell] for cell in CELLS} and set(found["table2"]) == {
        "base"
    }  # all of csreft stands in table1
    assert (folder / "params.yaml").read_bytes() == (root / "params.yaml").read_bytes()
    assert list(read_plan(folder / "plan.yaml").cells) == CELLS_IN_ORDER
    for task in TRAINED.values():
        kept = folder / f"adapters/experts/svf-{task}-0.safetensors"
        assert read_tensors(kept)[1] == read_tensors(root / f"artifacts/experts/svf-{task}-0.safetensors")[1]
    assert read_jsonl(folder / "curves/svf-sums-0.jsonl") == read_jsonl(root / "artifacts/curves/svf-sums-0.jsonl")
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == 40 * len(CELLS) and set(scores["cell"]) == set(CELLS)


# in the order of the plan, whatever was asked first
CELLS_IN_ORDER = [f"{task}-{row}" for task in TRAINED.values() for row in ("base", "svf-0")]
CELLS_IN_ORDER += ["queue-base"]


def test_a_published_run_says_where_it_comes_from(made: tuple[Path, dict[str, Any]]) -> None:
    record = json.loads(Path(".selfadapt/runs/train_svf@sums-0.json").read_text())
    Path(".selfadapt/runs/train_svf@sums-0.json").write_text(json.dumps({**record, "commit": "abc1234"}))
    score = {"outs": [{"path": "artifacts/scores/sums-svf-0.parquet"}], "deps": [{"path": "artifacts/completions/x"}]}
    train = {"outs": [{"path": "artifacts/completions/x"}]}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"score@sums-svf-0": score, "train_svf@sums-0": train}}))
    about = json.loads((publish.publish(["sums-svf-0", "sums-base"], "mine") / "run.json").read_text())
    assert about["commits"] == ["abc1234"] and list(about["seconds"]) == ["train_svf@sums-0"]
    assert about["base"]["base"] == "Toy-135M" and about["base"]["sha256"] == digest(Path("artifacts/base/model"))
    assert about["data"]["sums"]["test"] == {"rows": 40, "sha256": digest(Path("data/tasks/sums/test.jsonl"))}
    assert set(about["data"]["sums"]) == {"test", "train"} and set(about["data"]) == {"sums"}
    expert = about["adapters"]["experts/svf-sums-0"]
    assert expert["seed"] == 0 and expert["sha256"] == digest(Path("artifacts/experts/svf-sums-0.safetensors"))
    assert about["device"]["cores"] == "2" and about["device"]["machine"] == "x86_64"
    assert set(about["versions"]) == {"torch", "transformers", "numpy"}
    again = "selfadapt plan && dvc repro score@sums-base score@sums-svf-0 heuristics@sums"
    assert about["command"] == f"cp reports/published/mine/params.yaml params.yaml && {again}"


def test_answers_and_rules_are_published_whole_and_with_the_same_bytes(made: tuple[Path, dict[str, Any]]) -> None:
    folder = publish.publish(["queue-base", "sums-base"], "mine")
    answers = read_answers(folder)
    assert set(answers) == {"queue-base", "sums-base"}
    kept = [vars(answer) for answer in answers["queue-base"].values()]
    assert kept == read_jsonl(Path("artifacts/completions/queue-base.jsonl"))
    rules = read_rules(folder / "rules.jsonl.xz")
    assert {task: best_rule(frame).name for task, frame in rules.items()} == dict.fromkeys(
        ("queue", "sums"), "the first choice"
    )
    (one,) = read_published_runs(folder.parent, {})
    assert one.run.scores["right"].value_counts().to_dict() == {1: 2 * 26, 2: 2 * 14}
    assert one.run.scores["picked"].isna().sum() == 2 and not one.run.scores["marked"].all()
    before = {path.name: path.read_bytes() for path in folder.glob("*.xz")}
    assert len(before) == 2
    again = publish.publish(["queue-base", "sums-base"], "mine")
    assert {path.name: path.read_bytes() for path in again.glob("*.xz")} == before


def test_the_traces_of_searches_are_published(made: tuple[Path, dict[str, Any]]) -> None:
    folder = publish.publish(["queue-base", "queue-few_shot-0"], "mine")
    (one,) = read_published_runs(folder.parent, {})
    (search,) = one.run.mixtures.values()
    assert (search["row"], search["task"], len(search["trace"])) == ("few_shot", "queue", 2)
    (said,) = [part for part in published_section(one, published_statistics(one)).said if part.name == "Mixing"]
    assert "1 of 1 searches for α found a better mixture" in said.claims[0]


def test_a_large_adapter_is_told_by_its_hash(
    made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "SMALL", 10)
    folder = publish.publish(["sums-svf-0", "sums-base"], None)
    assert not list(folder.rglob("*.safetensors"))
    assert "experts/svf-sums-0" in json.loads((folder / "run.json").read_text())["adapters"]


def own_numbers(root: Path) -> dict[str, Any]:
    """The numbers that a report has of its own run: all but what published runs say of the papers' claims."""
    metrics = json.loads((root / "reports/metrics.json").read_text())
    metrics["claims"].pop("published", None)
    tables = {path.name: path.read_text() for path in (root / "reports/tables").iterdir() if path.stem != "claims"}
    return {"metrics": metrics, **tables}


def test_the_report_shows_published_runs_and_changes_no_number_of_its_own(made: tuple[Path, dict[str, Any]]) -> None:
    root, arguments = made
    report.run(**arguments)
    before = own_numbers(root)
    assert not (root / "reports/site/published.html").exists()
    publish.publish(CELLS, None)
    report.run(**arguments)
    assert own_numbers(root) == before
    published = json.loads((root / "reports/metrics.json").read_text())["claims"]["published"]
    assert set(published) == {"Toy-135M"} and sum(published["Toy-135M"].values()) > 50
    claims = pd.read_csv(root / "reports/tables/claims.csv").set_index(["id", "run"])
    for run in ("this run", "Toy-135M"):  # the same cells, so the same verdict
        assert claims.loc[("t2-svf-improves", run), "n"] == 120
    assert (
        claims.loc[("t2-svf-improves", "this run"), "effect"] == claims.loc[("t2-svf-improves", "Toy-135M"), "effect"]
    )
    assert 'href="../site/published.html#Toy-135M"' in (root / "reports/site/claims.html").read_text()
    page = re.sub(r"\s+", " ", (root / "reports/site/published.html").read_text())
    own = json.loads((root / "reports/metrics.json").read_text())["table1"]["svf"]["sums"]
    assert f"<b>{100 * own['mean']:.1f} %</b>" in page and f"[{100 * own['low']:.1f}, {100 * own['high']:.1f}]" in page
    assert "<code>cp reports/published/Toy-135M/params.yaml params.yaml &amp;&amp; selfadapt plan" in page
    assert "n = 40" in page and "paper: GSM8K" in page and "79.15 %" in page
    assert "svf-sums-0 had a rewarded answer in 1 of 12 steps" in page
    assert "completions.html#task" not in page  # whose prompts are not here
    for name in re.findall(r'src="\.\./(figures/[^"]+)"', page):
        assert (root / "reports" / name).is_file()
    assert 'href="../site/published.html"' in (root / "reports/site/table1.html").read_text()


def test_a_step_without_reward_is_said_to_have_taught_nothing(made: tuple[Path, dict[str, Any]]) -> None:
    root, arguments = made
    (said,) = learning.learning_claims(
        {"svf-sums-0": pd.DataFrame(read_jsonl(Path("artifacts/curves/svf-sums-0.jsonl")))}
    )
    assert said == (
        "svf-sums-0 had a rewarded answer in 1 of 12 steps; the others had nothing to learn from and changed nothing. "
        "Validation chose step 0, the base model as it is."
    )
    report.run(**arguments)
    assert said in (root / "reports/site/curves.html").read_text()
    rewarded = pd.DataFrame(read_jsonl(Path("artifacts/curves/svf-oldest-0.jsonl")))
    assert learning.learning_claims({"svf-oldest-0": rewarded}) == ()
    (line,) = learning.learning_table({"svf-oldest-0": rewarded}, {}).rows
    assert line[:4] == ("svf-oldest-0", 0.1, 12, 12)
    assert line[-5:] == pytest.approx((0.4, 0.2, 0.6, 0.01, 0.03)) and line[-6] is None
    (older,) = learning.learning_table({"x": rewarded.drop(columns=["mixed", "cosine", "largest"])}, {}).rows
    assert older[-5:] == (None, None, pytest.approx(0.6), pytest.approx(0.01), None)
    penalised = rewarded.assign(train=-1.0)
    assert (
        "followed the divergence penalty alone. Validation chose step 12."
        in learning.learning_claims({"x": penalised})[0]
    )


def test_no_folder_of_published_runs_is_no_published_run(tmp_path: Path) -> None:
    assert read_published_runs(tmp_path / "none", {}) == []
    (tmp_path / "README.md").write_text("about")
    assert read_published_runs(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["sums-sfv"], "expected cells of plan.yaml, got 'sums-sfv'; it has: sums-base, "),
        (
            ["sums-base", "queue-base"],
            "expected the scores of 'queue-base' in artifacts/scores, got none; run 'dvc repro score@",
        ),
    ],
)
def test_a_cell_that_is_not_there_is_one_sentence(
    made: tuple[Path, dict[str, Any]], cells: list[str], sentence: str
) -> None:
    Path("artifacts/scores/queue-base.parquet").unlink()
    with pytest.raises(UserError, match=re.escape(sentence)):
        publish.publish(cells, None)
    assert not Path("reports/published").exists()


def test_stale_scores_are_not_published(made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "stale", lambda stages: ["generate@sums-base"])
    with pytest.raises(
        UserError, match=r"up to date, but generate@sums-base would run again: .*; run 'dvc repro score@"
    ):
        publish.publish(["sums-base"], None)
    assert not Path("reports/published").exists()


def test_dvc_says_what_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="expected DVC to know the state of this run, got: "):
        publish.stale(["score@a"])
    subprocess.run(["dvc", "init", "--no-scm", "-q"], check=True)
    (tmp_path / "in").write_text("1")
    stage = {"cmd": "cp in ${item}", "deps": ["in"], "outs": ["${item}"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"score": {"foreach": ["a", "b"], "do": stage}}}))
    subprocess.run(["dvc", "repro", "-q", "score@a"], check=True)
    assert publish.stale(["score@a"]) == []
    assert publish.stale(["score@a", "score@b"]) == ["score@b"]
    (tmp_path / "in").write_text("2")
    assert publish.stale(["score@a"]) == ["score@a"]


def test_heads_are_published_as_labels_and_measured_from_them(made: tuple[Path, dict[str, Any]]) -> None:
    root, _ = made
    subsets = {"rte": {"metric": "accuracy", "rows": ["loreft", "lora"]}}
    heads = {"glue": {"tasks": ["sums"], "label": "answer", "token": "last", "subsets": subsets}}
    plan_again(root, {"tables": {}, "heads": heads})
    for method in ("reft", "lora"):
        key, right = f"rte-{method}-0", 30 if method == "reft" else 20
        labels = [{"id": str(n), "label": "yes", "given": "yes" if n < right else "no"} for n in range(40)]
        write_jsonl(root / f"artifacts/scores/heads/{key}.labels.jsonl", labels)
        about = {"method": method, "subset": "rte", "seed": 0, "metric": "accuracy", "value": right / 40}
        about |= {"accuracy": right / 40, "n": 40, "parameters": 12, "parameters_without_head": 10}
        write_json(root / f"artifacts/scores/heads/{key}.json", about)
        trained = {"provenance": {"method": method, "seed": 0, "parameters": 12}}
        write_tensors(root / f"artifacts/heads/{key}.safetensors", {}, trained)
    folder = publish.publish([], "glue")
    assert not (folder / "scores.csv").exists()  # there is no cell
    assert set(json.loads((folder / "run.json").read_text())["data"]) == {"sums"}
    (one,) = read_published_runs(folder.parent, {})
    found = published_statistics(one).head_metrics.set_index("row")
    assert found.loc["reft", "mean"] == 0.75 and found.loc["reft", "diff"] == 0.25 and found.loc["lora", "n"] == 40
    (glue, *_) = published_section(one, published_statistics(one)).listings
    assert glue.key == "glue" and (folder / "tables/glue.csv").is_file()


def test_what_judges_preferred_is_published_with_what_their_word_is_worth(made: tuple[Path, dict[str, Any]]) -> None:
    root, _ = made
    judges = {name: {"task": "alpaca"} for name in ("longer", "not_run")}
    table = {"tasks": ["sums"], "rows": ["base"], "judges": list(judges)}
    plan_again(root, {"tables": {"table1": table}, "judges": judges})
    said = {"judge": "longer", "cell": "sums-base", "reference": "text_davinci_003", "drawn": 3}
    said |= {"preferences": [1, 2, 2, 2], "agreed": [1, 0, 1, 1, 1], "length_controlled_win_rate": 0.5}
    write_json(root / "artifacts/scores/judged/sums-base-longer.json", said)
    folder = publish.publish([], "judges")
    assert "longer" in (folder / "tables/win_rates.csv").read_text()
    (one,) = read_published_runs(folder.parent, {})
    (line,) = published_statistics(one).win_rates
    assert line["win_rate"] == 0.75 and line["agreement"] == 0.8 and line["agreement_n"] == 5
    assert "win_rates" in {listing.key for listing in published_section(one, published_statistics(one)).listings}


def test_an_experiment_is_shown_as_it_was_written(made: tuple[Path, dict[str, Any]]) -> None:
    root, arguments = made
    reports: dict[str, Any] = {"interference": {}, "not_run": {}}
    plan_again(root, {"tables": {"table1": PARAMS["tables"]["table1"]}, "skill_reports": reports})
    table = Listing(
        "matrix", "Interference", ("row", "n", "share", "said"), (("a", 12, 0.125, "+1.0 [0, 2]"),), "A note."
    )
    bare = Listing("growth", "Growth", ("row", "n"), (("a", None),))
    drawn = draw.svg(Figure(), "skill-gates", "Gates by skill")
    files = {f"{one.key}.md": listing_markdown(one) for one in (table, bare)}
    files |= {f"{one.key}.csv": listing_csv(one) for one in (table, bare)}
    files |= {"claims.md": "# Said\n\n- One.\n- Two.\n", "numbers.csv": "a\n1\n", "skill-gates.svg": drawn}
    for name, text in files.items():
        write_text(root / f"reports/interference/{name}", text)
    folder = publish.publish([], "skills")
    (one,) = read_published_runs(folder.parent, {})
    (experiment,) = one.experiments
    assert experiment.claims == ("One.", "Two.") and experiment.listings == (bare, table)
    assert [figure.caption for figure in experiment.figures] == ["Gates by skill."]
    report.run(**arguments)
    page = (root / "reports/site/published.html").read_text()
    assert "<p>Two.</p>" in page and "A note." in page and "+1.0 [0, 2]" in page
    assert (root / "reports/figures/published-skills-skill-gates.svg").read_text() == drawn


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("run.json", lambda text: text.replace('"format": 3', '"format": 9'), "got format 9; publish it again"),
        ("run.json", lambda text: "{}", "got none of 'format'; publish it again"),
        ("run.json", lambda text: text[:50], "expected JSON in"),
        ("scores.csv", lambda text: text.replace("tokens", "words", 1), "got no column 'tokens'; publish"),
        (
            "scores.csv",
            lambda text: text.replace("sums-base,", "other,"),
            "no match for the cells ['other', 'sums-base']",
        ),
        ("scores.csv", lambda text: text.replace("True", "maybe", 1), "expected scores in"),
        ("scores.csv", lambda text: "", "expected scores in"),
        ("rules.jsonl.xz", lambda text: "no archive", "expected compressed lines of JSON in"),
        ("params.yaml", lambda text: "cells: [", "expected YAML in"),
        ("plan.yaml", lambda text: "plan: [", "expected YAML in"),
        ("plan.yaml", lambda text: text.replace("method: svf", "way: svf"), "-0.method: field required; run"),
    ],
)
def test_a_damaged_published_run_is_one_sentence(
    made: tuple[Path, dict[str, Any]], file: str, change: Any, sentence: str
) -> None:
    folder = publish.publish(["sums-svf-0", "sums-base"], None)
    (folder / file).write_text(change((folder / file).read_text(errors="replace")))
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read_published_runs(folder.parent, {})
    assert "\n" not in str(caught.value)
