"""What the report opens: the files that the plan names, and nothing else."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.artifacts import digest
from pipeline.core.errors import UserError
from pipeline.reporting.planned import read_plan
from stages import report
from tests.made import make_run


def test_what_the_plan_does_not_name_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make_run(tmp_path, examples=6, layers=2)
    monkeypatch.chdir(tmp_path)
    report.run(**arguments)
    before = digest(tmp_path / "reports")
    broken = ("scores/sums-other-0.parquet", "scores/weighed/sums-svf-0.jsonl", "scores/judged/sums-svf-0-longer.json")
    broken += ("scores/heads/rte-lora-0.json", "completions/sums-other-0.jsonl", "curves/svf-other-0.jsonl")
    broken += ("curves/spectra-base.parquet", "experts/svf-other-0.safetensors", "adapted/few_shot-other-0.jsonl")
    broken += ("adapted/few_shot-other-0.safetensors", "dispatched/other-0.jsonl", "skills/other-0.gates.jsonl")
    broken += ("skills/other-0.curve.jsonl", "classifier/classifier-1.safetensors", "../.selfadapt/runs/score@x.json")
    for name in broken:
        path = tmp_path / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not what its name says")
    report.run(**arguments)
    assert digest(tmp_path / "reports") == before


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("scores/sums-svf-0.parquet", "score@sums-svf-0"),
        ("completions/sums-base.jsonl", "generate@sums-base"),
        ("curves/svf-sums-0.jsonl", "train_svf@sums-0"),
        ("curves/classifier-0.jsonl", "fit_classifier@classifier-0"),
        ("experts/lora-oldest-0.safetensors", "train_supervised@lora-oldest-0"),
        ("skills/loreft-0.safetensors", "train_skills@loreft-0"),
        ("skills/csreft-0.gates.jsonl", "train_csreft@csreft-0"),
        ("dispatched/prompt-0.jsonl", "dispatch@prompt-0"),
        ("adapted/few_shot-queue-0.jsonl", "adapt@few_shot-queue-0"),
        ("../data/tasks/queue/test.jsonl", "prepare@queue"),
        ("../data/tasks/queue/train.jsonl", "prepare@queue"),
        ("scores/heuristics/queue.parquet", "heuristics@queue"),
    ],
)
def test_a_planned_file_that_is_missing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, stage: str
) -> None:
    arguments = make_run(tmp_path, examples=2, layers=2)
    (tmp_path / "artifacts" / file).unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"which the plan names; run 'dvc repro {stage}' to make it$") as caught:
        report.run(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "no such file"),
        ("plan: [", ": while parsing"),
        ("cells: {}", "no mapping 'plan'"),
        ("plan: {cells: {sums-base: {row: base}}}", "at cells.sums-base.method: field required"),
    ],
)
def test_a_damaged_plan_is_one_sentence(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "plan.yaml"
    if text is not None:
        path.write_text(text)
    said = rf"expected (a plan|YAML) in .*, got ?{problem}.*; run 'selfadapt plan'"
    with pytest.raises(UserError, match=said) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_several_trained_tasks_may_share_a_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"products": {"role": "trained", "data": {"domain": "math"}}}
    arguments = make_run(tmp_path, examples=4, layers=2, changes={"tasks": tasks})
    monkeypatch.chdir(tmp_path)
    report.run(**arguments)
    frame = pd.read_csv(tmp_path / "reports/tables/table1.csv")
    assert list(dict.fromkeys(frame["task"])) == ["sums", "functions", "oldest", "products", "mean_over_tasks"]
    assert (frame[frame["row"] == "svf"].set_index("task").loc[["sums", "products"], "paper"] == 0.7915).all()
    assert arguments["settings"].skills == ["math", "code", "reasoning"]
    assert "sums, functions, oldest, products" in (tmp_path / "reports/index.html").read_text()
