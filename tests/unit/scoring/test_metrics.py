"""Metrics of many answers at once: against scipy and by hand, as classes of evaluate, stored and reported."""

import json
import socket
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.core.artifacts import write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Score
from pipeline.evaluation.further import further
from pipeline.evaluation.intervals import Resampling
from pipeline.reporting.tables.further import further_metrics, metrics_table, with_weighed
from pipeline.scoring import metrics
from pipeline.scoring.metrics.huggingface import Answers, Paired
from pipeline.tasks import glue as glue_task
from stages import score

RESAMPLING = Resampling(resamples=500, seed=3)


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    expected = draw.integers(0, 6, 200).astype(float)
    return np.where(draw.random(200) < 0.6, expected, draw.integers(0, 6, 200)), expected


def test_correlations_are_scipys(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    assert metrics.pearson(*numbers) == pytest.approx(stats.pearsonr(*numbers).statistic)
    assert metrics.spearman(*numbers) == pytest.approx(stats.spearmanr(*numbers).statistic)  # with many ties


def test_matthews_of_two_labels_is_their_linear_correlation() -> None:
    given, expected = np.array([1, 0, 1, 1, 0, 0, 1, 0.0]), np.array([1, 0, 0, 1, 0, 1, 1, 0.0])
    assert metrics.matthews(given, expected) == pytest.approx(stats.pearsonr(given, expected).statistic)
    given[:2] = -1  # no label is a third one: less is right, and the correlation falls
    assert metrics.matthews(given, expected) < stats.pearsonr(np.abs(given), expected).statistic


def test_f1_is_that_of_the_label_1() -> None:
    given, expected = np.array([1, 1, 1, 0, -1, 0.0]), np.array([1, 1, 0, 1, 1, 0.0])
    assert metrics.f1(given, expected) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


@pytest.mark.parametrize("name", ["f1", "matthews", "pearson", "spearman"])
def test_what_says_the_same_of_everything_is_worth_nothing(name: str) -> None:
    assert metrics.PAIRED[name](np.zeros(5), np.array([1, 0, 1, 1, 0.0])) == 0


def test_metrics_combine_and_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a metric asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "none"))
    found = evaluate.combine([Paired(name) for name in metrics.PAIRED]).compute(
        predictions=[1, 0, 1, 1], references=[1, 0, 0, 1]
    )
    assert found.keys() == metrics.PAIRED.keys()
    assert (found["accuracy"], found["f1"]) == (0.75, pytest.approx(0.8))
    examples = [Example(str(n), ({"role": "user", "content": "?"},), str(n), {"answer": str(n)}) for n in range(2)]
    both = evaluate.combine([Answers("gsm8k"), Answers("math")], force_prefix=True)
    for text, example in zip(["It is 0.", "\\boxed{\\frac{\\sqrt{4}}{2}}"], examples, strict=True):
        both.add(prediction=text, reference=json.dumps(vars(example)))
    assert both.compute() == {
        "gsm8k_accuracy": 0.5,  # the first number of the box is 4
        "gsm8k_unparsed": 0.0,
        "math_accuracy": 1.0,
        "math_unparsed": 0.0,
    }
    assert not (tmp_path / "none").exists()


# ---- from the scorer to the report ---------------------------------------------------------------------------------


def mrpc(answers: list[str]) -> list[Example]:
    meta = {"labels": ["no", "yes"], "subset": "mrpc"}
    asked = ({"role": "user", "content": "Do these mean the same?"},)
    return [Example(str(n), asked, one, {**meta, "answer": one}) for n, one in enumerate(answers)]


def completions(texts: list[str]) -> list[dict[str, Any]]:
    rest = {"tokens": 1, "prompt_tokens": 1, "finished": True}
    return [{"id": str(n), "text": text, **rest} for n, text in enumerate(texts)]


def scored(tmp_path: Path, name: str, answers: list[str], texts: list[str]) -> pd.DataFrame:
    write_jsonl(tmp_path / "test.jsonl", (vars(example) for example in mrpc(answers)))
    write_jsonl(tmp_path / f"{name}.jsonl", completions(texts))
    found = score.run(
        task="glue",
        examples=tmp_path / "test.jsonl",
        completions=tmp_path / f"{name}.jsonl",
        scores=tmp_path / f"{name}.parquet",
    )
    frame = pd.read_parquet(tmp_path / f"{name}.parquet")
    assert found["f1"] == pytest.approx(metrics.f1(frame["given"].to_numpy(), frame["expected"].to_numpy()))
    return frame.assign(row=name, task="glue", seed=0, cell=f"glue-{name}")


def test_an_aggregate_metric_is_stored_resampled_and_compared(tmp_path: Path) -> None:
    answers = ["yes", "no", "yes", "yes", "no", "yes", "no", "yes"] * 10
    base = scored(tmp_path, "base", answers, ["yes"] * 80)
    svf = scored(tmp_path, "svf", answers, [*answers[:70], *["dunno"] * 10])
    assert list(svf["given"])[-1] == -1 and set(svf["metrics"]) == {"f1"}
    frame = further(pd.concat([base, svf]), RESAMPLING, "base")
    of_base, of_svf = frame.to_dict("records")
    assert (of_base["metric"], of_base["n"], of_base["mean"]) == ("f1", 80, pytest.approx(2 * 50 / 130))
    assert of_svf["low"] < of_svf["mean"] == pytest.approx(2 * 44 / (44 + 50)) and of_svf["high"] <= 1
    assert of_svf["diff"] == pytest.approx(of_svf["mean"] - of_base["mean"]) and of_svf["verdict"] == "better"
    assert of_svf["diff_low"] < of_svf["diff"] < of_svf["diff_high"]
    assert further_metrics(frame)["svf"]["glue"]["f1"]["n"] == 80
    table = metrics_table(frame)
    assert table.rows[1][:4] == ("glue", "SVF expert", "f1", 93.62) and table.rows[1][9] == "better"


def test_a_scorers_further_metric_has_a_column_where_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    also: list[dict[str, float]] = [{"plus": 1.0}, {}, {"plus": 0.0}]
    scores = [Score(str(n), 1.0, True, "x", also=one) for n, one in enumerate(also)]
    monkeypatch.setattr("pipeline.tasks.sums.score", lambda *_: scores)
    write_jsonl(tmp_path / "test.jsonl", (vars(example) for example in mrpc(["yes"] * 3)))
    write_jsonl(tmp_path / "cell.jsonl", completions([""] * 3))
    paths: dict[str, Any] = {"examples": tmp_path / "test.jsonl", "completions": tmp_path / "cell.jsonl"}
    found = score.run(task="sums", **paths, scores=tmp_path / "cell.parquet")
    assert (found["accuracy"], found["plus"]) == (1.0, 0.5)
    frame = pd.read_parquet(tmp_path / "cell.parquet").assign(row="base", task="sums", seed=0, cell="sums-base")
    assert list(frame.columns)[8] == "also.plus" and frame["also.plus"].isna().tolist() == [False, True, False]
    (line,) = further(frame, RESAMPLING, "base").to_dict("records")
    assert (line["metric"], line["mean"], line["n"]) == ("plus", 0.5, 2)


def test_glues_similarities_are_pairs_and_an_unread_one_is_the_middle() -> None:
    examples = [Example(str(n), (), "", {"labels": [], "subset": "stsb", "answer": str(n)}) for n in range(3)]
    pairs = glue_task.pairs(examples, glue_task.score(examples, ["0.5", "what?", "9"]))
    assert pairs == ([0.5, 2.5, 5.0], [0.0, 1.0, 2.0])
    assert glue_task.metrics(examples) == ("pearson", "spearman")


def test_the_likeliest_choices_of_a_cell_stand_beside_its_answers(tmp_path: Path) -> None:
    ids = [f"q{n}" for n in range(4)]
    scores = pd.DataFrame(
        {"id": ids, "correct": [True, False] * 2, "row": "base", "task": "t", "seed": 0, "cell": "t-base"}
    )
    assert with_weighed(scores, tmp_path, []) is scores
    rows = [{"id": one, "likeliest": 1.0, "log_likelihoods": {"A": -1.0, "B": -2.0}} for one in reversed(ids)]
    write_jsonl(tmp_path / "t-base.jsonl", rows)
    (line,) = further(with_weighed(scores, tmp_path, ["t-base"]), RESAMPLING, "base").to_dict("records")
    assert (line["metric"], line["mean"], line["n"]) == ("likeliest", 1.0, 4)
    write_jsonl(tmp_path / "t-base.jsonl", rows[1:])
    with pytest.raises(UserError, match="run 'dvc repro weigh@t-base'"):
        with_weighed(scores, tmp_path, ["t-base"])
