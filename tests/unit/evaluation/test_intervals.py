"""Means, intervals and verdicts against known cases; scoring from files to files."""

import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.core.artifacts import write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.types import Example, Score
from pipeline.evaluation import intervals
from pipeline.evaluation.intervals import MEAN_OVER_TASKS, Estimate, Resampling
from stages import score

RESAMPLING = Resampling(resamples=4000, seed=7)


def lines(row: str, task: str, correct: list[bool], seed: int = 0, cell: str = "") -> pd.DataFrame:
    """The scores of one cell."""
    return pd.DataFrame(
        {
            "row": row,
            "task": task,
            "seed": seed,
            "cell": cell or f"{row}-{task}-{seed}",
            "id": [f"{task}-{number}" for number in range(len(correct))],
            "correct": correct,
            "parsed": True,
            "finished": True,
            "tokens": 3,
        }
    )


def line(frame: pd.DataFrame, row: str, task: str) -> pd.Series:
    found = frame[(frame["row"] == row) & (frame["task"] == task)]
    assert len(found) == 1
    return found.iloc[0]


def test_the_interval_of_an_accuracy_is_the_binomial_one() -> None:
    values = np.array([1.0] * 60 + [0.0] * 140)
    found = intervals.estimate([values], RESAMPLING)
    low, high = stats.binom(200, 0.3).ppf([0.025, 0.975]) / 200  # what a bootstrap of 0s and 1s draws from
    assert found.mean == pytest.approx(0.3) and found.n == 200
    assert found.low == pytest.approx(low, abs=0.0051) and found.high == pytest.approx(high, abs=0.0051)


def test_the_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=150)
    found = intervals.estimate([values], Resampling(resamples=20000, seed=0))
    known = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=2).confidence_interval
    assert found.low == pytest.approx(known.low, abs=0.01) and found.high == pytest.approx(known.high, abs=0.01)


def test_the_resamples_equal_a_slow_loop_and_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(37)
    small = Resampling(resamples=50, seed=5)
    generator = np.random.default_rng([5, 3])
    slow = [np.mean([values[generator.integers(37)] for _ in range(37)]) for _ in range(50)]
    assert np.allclose(intervals.resampled_means(values, small, 3), slow)
    whole = intervals.resampled_means(values, small, 3)
    monkeypatch.setattr(intervals, "BLOCK", 100)
    assert np.array_equal(intervals.resampled_means(values, small, 3), whole)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    draws = np.random.default_rng(3).random((400, 120)) < 0.4
    found = [intervals.estimate([draw.astype(float)], Resampling(resamples=400, seed=1)) for draw in draws]
    assert 0.91 < np.mean([one.low <= 0.4 <= one.high for one in found]) < 0.98


def test_a_mean_over_tasks_weighs_tasks_equally_and_resamples_each() -> None:
    one, other = np.array([1.0] * 10), np.array([0.0, 1.0] * 50)
    found = intervals.estimate([one, other], RESAMPLING)
    alone = intervals.estimate([other], RESAMPLING)
    assert found.mean == pytest.approx(0.75) and found.n == 110
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2, abs=0.01)


def test_a_paired_difference_is_narrower_than_two_separate_intervals() -> None:
    hard = np.random.default_rng(0).random(200) < 0.5
    better = hard.copy()
    better[np.flatnonzero(~hard)[:20]] = True
    scores = pd.concat([lines("base", "sums", list(hard)), lines("svf", "sums", list(better))])
    found = line(intervals.compare(scores, RESAMPLING, "base"), "svf", "sums")
    assert found["diff"] == pytest.approx(0.1)
    assert found["diff_low"] == pytest.approx(0.06, abs=0.011) and found["diff_high"] == pytest.approx(0.14, abs=0.011)
    assert found["verdict"] == "better"
    assert found["low"] < line(intervals.compare(scores, RESAMPLING, "base"), "base", "sums")["high"]


def test_pairs_are_made_by_id_whatever_the_order() -> None:
    base = lines("base", "sums", [True, False] * 20)
    method = lines("svf", "sums", [True, False] * 20).sample(frac=1, random_state=0)
    found = line(intervals.compare(pd.concat([base, method]), RESAMPLING, "base"), "svf", "sums")
    assert (found["diff"], found["diff_low"], found["diff_high"], found["verdict"]) == (0, 0, 0, "undecided")


def test_other_examples_are_not_compared() -> None:
    scores = pd.concat([lines("base", "sums", [True] * 5), lines("svf", "sums", [True] * 4)])
    with pytest.raises(UserError, match="'sums-4'"):
        intervals.compare(scores, RESAMPLING, "base")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.1, 0.1, "undecided"), (0.0, 0.1, "undecided")],
)
def test_the_verdict_follows_the_interval_alone(low: float, high: float, word: str) -> None:
    assert intervals.verdict(Estimate(mean=0.5, low=low, high=high, n=3)) == word


def test_the_interval_over_prompts_and_seeds_is_that_of_a_slow_loop() -> None:
    draw = np.random.default_rng(2)
    values = (draw.random((60, 4)) < draw.random(4) * 0.8).astype(float)  # the seeds differ more than chance has them
    loop = np.random.default_rng(9)
    slow = [values[loop.integers(60, size=60)][:, loop.integers(4, size=4)].mean() for _ in range(4000)]
    found = intervals.estimate([values], RESAMPLING)
    assert (found.mean, found.n) == (pytest.approx(values.mean()), 60)
    assert found.low == pytest.approx(np.quantile(slow, 0.025), abs=0.02)
    assert found.high == pytest.approx(np.quantile(slow, 0.975), abs=0.02)
    over_prompts = intervals.estimate([values.mean(axis=1)], RESAMPLING)
    assert found.high - found.low > 1.3 * (over_prompts.high - over_prompts.low)


def test_seeds_of_two_methods_are_drawn_apart() -> None:
    right = [True] * 30 + [False] * 10
    scores = pd.concat(
        [lines("base", "sums", right)]
        + [lines("lora", "sums", right[seed:] + right[:seed], seed) for seed in (0, 5)]
        + [lines("svf", "sums", [True] * 40 if seed else right, seed) for seed in (0, 1, 2)]
    )
    found = line(intervals.compare(scores, RESAMPLING, "lora"), "svf", "sums")
    assert found["seeds"] == 3 and found["diff"] == pytest.approx((30 + 40 + 40) / 120 - 30 / 40)
    assert found["diff_low"] < 0.06  # all seeds drawn may be the one that learnt nothing
    assert line(intervals.compare(scores, RESAMPLING, "base"), "svf", "sums")["diff"] == pytest.approx(found["diff"])


def test_p_is_small_where_the_interval_leaves_out_zero_and_never_zero() -> None:
    away, near = np.array([1.0] * 30 + [0.0] * 70), np.array([1.0, -1.0] * 50)
    assert intervals.estimate_with_p([away], RESAMPLING)[1] == pytest.approx(2 / 4001)
    assert intervals.estimate_with_p([near], RESAMPLING)[1] > 0.9


def test_holm_multiplies_the_smallest_p_by_their_number_and_keeps_the_order() -> None:
    assert intervals.holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert intervals.holm([0.5, 0.6]) == [1.0, 1.0] and intervals.holm([]) == []


def test_differences_of_a_table_are_read_together_without_their_mean() -> None:
    scores = pd.concat(
        lines(row, task, [True] * right + [False] * (60 - right))
        for row, task, right in [("base", "a", 30), ("base", "b", 30), ("svf", "a", 31), ("svf", "b", 50)]
    )
    found = intervals.compare(scores, RESAMPLING, "base")
    one, other = line(found, "svf", "a"), line(found, "svf", "b")
    assert other["p_holm"] == pytest.approx(2 * other["p"]) and one["p_holm"] == pytest.approx(one["p"])
    assert pd.isna(line(found, "svf", MEAN_OVER_TASKS)["p_holm"])


def test_seeds_are_averaged_per_example_and_are_not_more_examples() -> None:
    scores = pd.concat([lines("svf", "sums", [True, True, False, False], seed) for seed in (0, 1, 2)])
    found = line(intervals.compare(scores, RESAMPLING, "base"), "svf", "sums")
    once = intervals.compare(lines("svf", "sums", [True, True, False, False]), RESAMPLING, "base")
    assert (found["n"], found["seeds"], found["mean"]) == (4, 3, 0.5)
    assert found["low"] == line(once, "svf", "sums")["low"]
    assert pd.isna(found["diff"])


def test_of_alternatives_the_best_counts_and_is_named() -> None:
    worse, better = [True, False, False, False], [True, True, True, False]
    scores = pd.concat([lines("best_lora", "queue", worse, cell="a"), lines("best_lora", "queue", better, cell="b")])
    found = line(intervals.compare(scores, RESAMPLING, "base"), "best_lora", "queue")
    assert (found["mean"], found["cells"], found["alternatives"], found["seeds"]) == (0.75, "b", 2, 1)


def test_the_mean_over_tasks_stands_where_a_row_has_all_of_them() -> None:
    scores = pd.concat(
        [
            lines("base", "sums", [True, False]),
            lines("base", "oldest", [True, True]),
            lines("svf", "sums", [True, True]),
        ]
    )
    found = intervals.compare(scores, RESAMPLING, "base")
    assert line(found, "base", MEAN_OVER_TASKS)["mean"] == 0.75
    assert MEAN_OVER_TASKS not in set(found[found["row"] == "svf"]["task"])


def test_the_difference_of_the_read_and_finished_leaves_the_form_of_answers_out() -> None:
    """The base knows as much as the expert, and half of its answers cannot be read."""
    knows = [number % 2 == 0 for number in range(100)]
    unread = [number < 50 for number in range(100)]
    base = lines("base", "sums", [know and not lost for know, lost in zip(knows, unread, strict=True)])
    scores = pd.concat([base.assign(parsed=[not lost for lost in unread]), lines("svf", "sums", knows)])
    found = line(intervals.compare(scores, RESAMPLING, "base"), "svf", "sums")
    assert found["diff"] == pytest.approx(0.25) and found["read_diff"] == 0 and found["read_n"] == 50
    cut = scores.assign(finished=[False] * 100 + [True] * 100)
    found = line(intervals.compare(cut, RESAMPLING, "base"), "svf", "sums")
    assert found["read_n"] == 0 and pd.isna(found["read_diff"])


def test_an_example_counts_as_read_where_every_seed_of_both_sides_was() -> None:
    one, other = lines("svf", "sums", [True] * 10, 0), lines("svf", "sums", [True] * 10, 1)
    one.loc[0, "parsed"], other.loc[1, "finished"] = False, False
    scores = pd.concat([lines("base", "sums", [False] * 10), one, other])
    found = line(intervals.compare(scores, RESAMPLING, "base"), "svf", "sums")
    assert found["read_n"] == 8 and found["read_diff"] == 1


@pytest.fixture
def toy_task(monkeypatch: pytest.MonkeyPatch) -> str:
    """A task that is right if the answer is the target, and reads digits only."""

    def scorer(examples: list[Example], answers: list[str]) -> list[Score]:
        return [
            Score(
                example.id,
                float(answer == example.target),
                answer == example.target,
                answer if answer.isdigit() else None,
                marked=answer.isdigit(),
            )
            for example, answer in zip(examples, answers, strict=True)
        ]

    module = types.ModuleType("pipeline.tasks.toy")
    module.score = scorer
    monkeypatch.setitem(sys.modules, "pipeline.tasks.toy", module)
    return "toy"


def test_scoring_writes_the_same_parquet_each_time(toy_task: str, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "?"}]
    prompts = [{"id": str(n), "messages": turns, "target": str(n), "meta": {"task": "toy"}} for n in range(3)]
    texts = ["0", "7", "no idea"]
    answers = [
        {"id": str(n), "text": text, "tokens": n + 1, "prompt_tokens": 9, "finished": n != 2}
        for n, text in enumerate(texts)
    ]
    write_jsonl(tmp_path / "test.jsonl", prompts)
    write_jsonl(tmp_path / "cell.jsonl", answers)
    for name in ("one", "two"):
        metrics = score.run(
            task=toy_task,
            examples=tmp_path / "test.jsonl",
            completions=tmp_path / "cell.jsonl",
            scores=tmp_path / f"{name}.parquet",
        )
    assert metrics == {
        "accuracy": pytest.approx(1 / 3),
        "unparsed": pytest.approx(1 / 3),
        "truncated": pytest.approx(1 / 3),
        "tokens": 6,
    }
    frame = pd.read_parquet(tmp_path / "one.parquet")
    assert list(frame.columns) == ["id", "value", "correct", "parsed", "marked", "tokens", "prompt_tokens", "finished"]
    assert list(frame["correct"]) == [True, False, False] and frame["parsed"].isna().tolist() == [False, False, True]
    assert frame["marked"].dtype == bool and list(frame["marked"]) == [True, True, False]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_scoring_refuses_completions_of_other_examples(toy_task: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"id": "a", "messages": [], "target": "", "meta": {}}])
    write_jsonl(tmp_path / "cell.jsonl", [{"id": "b", "text": "", "tokens": 1, "prompt_tokens": 1, "finished": True}])
    with pytest.raises(UserError, match="in order"):
        score.run(
            task=toy_task,
            examples=tmp_path / "test.jsonl",
            completions=tmp_path / "cell.jsonl",
            scores=tmp_path / "x.parquet",
        )
