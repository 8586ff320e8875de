"""The ReFT paper's tables in the report of a made-up run, and in a report of their own."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.core.artifacts import write_json, write_jsonl, write_tensors
from pipeline.core.errors import UserError
from pipeline.reporting.compose_benchmarks import BenchmarkReport
from pipeline.reporting.tables import reft
from pipeline.scoring.metrics import f1
from stages import compare_benchmarks, report
from tests.made import PUBLISHED, make_run

SUBSETS = reft.SUBSETS["commonsense8"]
EACH = 10
RIGHT = {"base": 3, "lora": 5, "reft": 7}  # of every ten, of each subset but the last, where all are right by half


CHANGES = {
    "tasks": {"commonsense": {"role": "trained", "data": {"domain": "others"}}},
    "rows": {"reft": {"method": "reft", "from": "train_supervised"}},
    "tables": {
        "table1": {"tasks": ["sums", "functions", "oldest"], "rows": ["base", "lora", "svf"]},
        "csreft": {"tasks": ["sums", "functions", "oldest"], "rows": ["base", "loreft", "csreft"]},
        "commonsense8": {"tasks": ["commonsense"], "rows": ["base", "lora", "reft"]},
        "alpaca_eval": {"tasks": ["queue"], "rows": ["reft"], "judges": ["self"]},
    },
    "judges": {"self": {"kind": "local", "task": "alpaca"}},
    "heads": {
        "glue": {
            "tasks": ["oldest"],
            "label": "answer",
            "token": "last",
            "subsets": {"mrpc": {"metric": "f1", "rows": ["lora", "reft"]}},
        }
    },
}
LABELS = {"reft": ("yes", "yes", "no", "no"), "lora": ("yes", "no", "yes", "no")}
TRUE = ("yes", "yes", "no", "yes")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A made-up run with cells of all four tables, and its report."""
    root = tmp_path_factory.mktemp("run")
    arguments = make_run(root, changes=CHANGES)
    ids = [f"{subset}-test-{number}" for subset in SUBSETS for number in range(EACH)]
    meta = {"answer": "true", "labels": ["true", "false"], "task": "commonsense"}
    turns = [{"role": "user", "content": "Is it?"}]
    examples = [{"id": one, "messages": turns, "target": "true", "meta": meta} for one in ids]
    write_jsonl(root / "data/tasks/commonsense/test.jsonl", examples)
    for row, right in RIGHT.items():
        cell = "commonsense-base" if row == "base" else f"commonsense-{row}-0"
        answers = [{"id": one, "text": "true", "tokens": 6, "prompt_tokens": 40, "finished": True} for one in ids]
        write_jsonl(arguments["completions"] / f"{cell}.jsonl", answers)
        counts = [right] * (len(SUBSETS) - 1) + [5]
        correct = [number < count for count in counts for number in range(EACH)]
        frame = pd.DataFrame({"id": ids, "value": 1.0, "correct": correct, "parsed": "true", "tokens": 6})
        frame.assign(prompt_tokens=40, finished=True).to_parquet(arguments["scores"] / f"{cell}.parquet")
        provenance = {"method": row, "task": "commonsense", "seed": 0, "base": "base", "parameters": 41_000}
        if row != "base":
            path = root / f"artifacts/experts/{row}-commonsense-0.safetensors"
            write_tensors(path, {}, {"kind": row, "config": {}, "provenance": provenance})
    rule = [{"rule": "always true", "id": one, "value": float(one.endswith(("-0", "-1")))} for one in ids]
    pd.DataFrame(rule).to_parquet(arguments["scores"] / "heuristics/commonsense.parquet")
    for method, given in LABELS.items():
        key = f"mrpc-{method}-0"
        known = {"method": method, "subset": "mrpc", "seed": 0, "metric": "f1", "parameters_without_head": 41_000}
        write_json(arguments["scores"] / f"heads/{key}.json", known)
        lines = [
            {"id": f"mrpc-test-{number}", "label": TRUE[number % 4], "given": given[number % 4]} for number in range(40)
        ]
        write_jsonl(arguments["scores"] / f"heads/{key}.labels.jsonl", lines)
    judged = {"cell": "queue-reft-0", "judge": "self", "reference": "text_davinci_003", "drawn": 1}
    judged |= {"preferences": [1, 2, 2, 2, None], "agreed": [1, 0, 1, 1], "length_controlled_win_rate": 0.5}
    write_json(arguments["scores"] / "judged/queue-reft-0-self.json", judged)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        report.run(**arguments)
    return root, arguments


def row_of(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return [part.strip() for part in line.strip("|").split("|")][1:]


def test_a_benchmark_of_several_has_a_column_for_each_and_their_mean(made: tuple[Path, dict[str, Any]]) -> None:
    metrics = json.loads((made[0] / "reports/metrics.json").read_text())["commonsense8"]
    assert list(metrics) == ["base", "lora", "reft"]
    assert set(metrics["reft"]) == {*SUBSETS, reft.MEAN}
    assert metrics["reft"]["piqa"]["mean"] == 0.7 and metrics["reft"]["piqa"]["n"] == EACH
    assert metrics["reft"]["piqa"]["diff"] == pytest.approx(0.4)
    assert metrics["reft"][reft.MEAN]["mean"] == pytest.approx((7 * 0.7 + 0.5) / 8)
    text = (made[0] / "reports/tables/commonsense8.md").read_text()
    columns = [name.partition(" ")[0] for name in row_of(text, "")]
    assert columns[: len(SUBSETS)] == list(SUBSETS), "the paper's order"


def test_the_papers_numbers_and_shares_stand_beside_ours(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "reports/tables/commonsense8.md").read_text()
    text, _, paper = text.partition("| *paper, LLaMA-7B* |")
    loreft, lora = row_of(paper, "LoReFT"), row_of(paper, "LoRA")
    assert loreft[0] == "69.30" and loreft[8] == "80.20"
    assert lora[0] == "not in the paper" and lora[8] == "74.70"
    trained, budget = row_of(text, "LoReFT")[-1].split("; 12 steps")
    assert trained == "41 000; 0.0305 % of the base; paper: 0.031 %".replace(" 000", "\u202f000")
    assert budget == " × 4 prompts = 48 prompts seen, 30 distinct"


def test_the_claim_is_judged_by_the_interval_on_the_mean(made: tuple[Path, dict[str, Any]]) -> None:
    frame = pd.read_csv(made[0] / "reports/tables/claims.csv").set_index("id")
    found = frame.loc["reft-commonsense-lora"]
    assert found["verdict"] == "holds" and found["effect"] == pytest.approx(100 * 7 * 0.2 / 8) and found["n"] == 80
    assert found["low"] > 0 and found["table"] == "commonsense8"
    small = frame.loc["reft-is-small"]  # of the rows of that table, which are here of one size
    assert small["effect"] == 1 and small["verdict"] == "does not hold"
    text = (made[0] / "reports/tables/commonsense8.md").read_text()
    assert "- LoReFT is more accurate than LoRA on the mean over eight tasks of common sense: holds (+17.5 [" in text


def test_the_best_rule_is_that_of_each_subset(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "reports/tables/commonsense8.md").read_text()
    rules = row_of(text, "best rule without a model")
    assert rules[: len(SUBSETS) + 1] == ["20.0 (always true)"] * (len(SUBSETS) + 1)


def test_glue_is_in_the_tasks_metric_with_the_difference_from_lora(made: tuple[Path, dict[str, Any]]) -> None:
    metrics = json.loads((made[0] / "reports/metrics.json").read_text())["heads"]

    def expected(method: str) -> float:
        numbers = [
            pd.Series([one == "yes" for one in labels]).astype(int).to_numpy() for labels in (LABELS[method], TRUE)
        ]
        return f1(*numbers)

    found = metrics["reft"]["mrpc"]["f1"]
    assert found["mean"] == pytest.approx(expected("reft"), abs=1e-6) and found["n"] == 40
    assert found["diff"] == pytest.approx(expected("reft") - expected("lora"), abs=2e-6)
    text = (made[0] / "reports/tables/glue.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| mrpc | LoReFT | f1 | 80 |")]
    assert line.endswith("| 0.03048 | 89.2 |") and "RoBERTa-base: full 85.6; lora 84.7 with 0.239 %" in text


def test_win_rates_of_alpaca_eval_stand_above_the_papers(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "reports/tables/alpaca_eval_judged.md").read_text()
    assert row_of(text, "LoReFT")[1] == "75" and row_of(text, "LoReFT")[4:] == ["4", "self", "75"]
    assert row_of(text, "papers, Llama-2-7B: csreft")[:2] == ["0.0098", "93.94"]
    assert row_of(text, "papers, Llama-2-7B: loreft")[:2] == ["0.0039", "85.6"]


def test_a_report_of_its_own_has_the_same_tables(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, arguments = made
    asked = BenchmarkReport(tables=("commonsense8",), adapters="experts")
    places = {name: arguments[name] for name in ("settings", "plan", "examples", "scores", "base")}
    found = compare_benchmarks.run(
        report="it",
        asked=asked,
        **places,
        adapters=root / "artifacts/experts",
        published=PUBLISHED,
        written=tmp_path / "it",
    )
    names = {path.name for path in (tmp_path / "it").iterdir()}
    assert names == {"claims.md", "commonsense8.svg"} | {
        f"{name}.{kind}" for name in ("commonsense8", "glue", "answers", "win_rates") for kind in ("md", "csv")
    }
    for name in ("commonsense8.md", "commonsense8.csv", "glue.md"):
        assert (tmp_path / "it" / name).read_bytes() == (root / "reports/tables" / name).read_bytes()
    assert found["claims"]


def test_a_report_of_nothing_is_one_sentence(tmp_path: Path) -> None:
    arguments = make_run(tmp_path, examples=2, layers=2)
    places = {name: arguments[name] for name in ("settings", "plan", "examples", "scores", "base")}
    asked = BenchmarkReport(tables=("arithmetic4",), adapters="experts")
    with pytest.raises(UserError, match="expected cells of the tables arithmetic4, heads or judged cells for 'it'"):
        compare_benchmarks.run(
            report="it",
            asked=asked,
            **places,
            adapters=tmp_path / "artifacts/experts",
            published=PUBLISHED,
            written=tmp_path / "it",
        )
    assert not (tmp_path / "it").exists()
