"""When a verdict is withheld, and why it says that it is."""

import pandas as pd
import pytest

from pipeline.core.errors import UserError
from pipeline.evaluation import rules
from pipeline.evaluation.intervals import MEAN_OVER_TASKS, Resampling, compare
from pipeline.evaluation.verdicts import VERDICTS, counts

RESAMPLING = Resampling(resamples=1000, seed=3)
N = 100


def cell(row: str, right: int, *, task: str = "sums", seed: int = 0, cut: int = 0, unread: int = 0) -> pd.DataFrame:
    """The scores of a cell: the first ``right`` answers are right, the last ones cut, those before them unread."""
    places = range(N)
    return pd.DataFrame(
        {
            "row": row,
            "task": task,
            "seed": seed,
            "cell": f"{task}-{row}-{seed}",
            "id": [f"{task}-{number}" for number in places],
            "correct": [number < right for number in places],
            "parsed": [not N - cut - unread <= number < N - cut for number in places],
            "finished": [number < N - cut for number in places],
            "tokens": 3,
        }
    )


def rule(values: dict[str, int], task: str = "sums") -> rules.Rule:
    """The best of some rules, each with how many of the first examples it is right for."""
    lines = [
        {"rule": name, "id": f"{task}-{number}", "value": float(number < right)}
        for name, right in values.items()
        for number in range(N)
    ]
    return rules.best_rule(pd.DataFrame(lines))


def verdict(scores: list[pd.DataFrame], row: str = "svf", task: str = "sums", **more: object) -> tuple[str, str]:
    found = compare(pd.concat(scores), RESAMPLING, "base", **more)  # type: ignore[arg-type]
    line = found[(found["row"] == row) & (found["task"] == task)].iloc[0]
    return line["verdict"], line["reason"]


@pytest.mark.parametrize(("right", "word"), [(60, "better"), (10, "worse"), (31, "undecided")])
def test_a_verdict_that_is_given_has_no_reason(right: int, word: str) -> None:
    assert verdict([cell("base", 30), cell("svf", right)]) == (word, "")


@pytest.mark.parametrize(
    ("base", "svf", "reason"),
    [
        ({"cut": 97}, {}, "of the answers of 'base', 97 % cut at the token limit"),
        ({}, {"unread": 11}, "of its answers, 11 % not readable"),
        ({"cut": 6}, {"cut": 6, "unread": 5}, "of its answers, 6 % cut at the token limit and 5 % not readable"),
        (
            {"cut": 20},
            {"unread": 30},
            "of its answers, 30 % not readable; of the answers of 'base', 20 % cut at the token limit",
        ),
    ],
)
def test_cut_or_unread_answers_of_either_side_are_not_interpretable(
    base: dict[str, int], svf: dict[str, int], reason: str
) -> None:
    assert verdict([cell("base", 3, **base), cell("svf", 60, **svf)]) == ("not interpretable", reason)


def test_a_tenth_of_the_answers_may_be_lost() -> None:
    assert verdict([cell("base", 30, cut=10), cell("svf", 60, unread=10)])[0] == "better"


def test_a_mean_over_tasks_is_as_interpretable_as_the_worst_of_them() -> None:
    scores = [cell(row, right, task=task) for row, right in (("base", 30), ("svf", 60)) for task in ("sums", "oldest")]
    scores.append(cell("base", 1, task="repairs", cut=25))
    scores.append(cell("svf", 60, task="repairs"))
    word, reason = verdict(scores, task=MEAN_OVER_TASKS)
    assert word == "not interpretable"
    assert reason == "of the answers of 'base' on repairs, 25 % cut at the token limit"
    assert verdict(scores)[0] == "better"


def test_better_than_the_base_and_no_better_than_a_rule_is_not_interpretable() -> None:
    scores = [cell("base", 20), cell("svf", 45)]
    third = rule({"the third name mentioned": 44, "chance": 33})
    word, reason = verdict(scores, rules={"sums": third})
    assert word == "not interpretable"
    assert reason == "the rule 'the third name mentioned' is right for 44.0 %, and it is not shown to do better"
    assert verdict(scores, rules={"sums": rule({"the first choice": 25})}) == ("better", "")
    assert verdict(scores, rules={"other": third}) == ("better", "")


def test_a_rule_withholds_nothing_but_better() -> None:
    known = {"sums": rule({"the first choice": 90})}
    assert verdict([cell("base", 60), cell("svf", 20)], rules=known) == ("worse", "")
    assert verdict([cell("base", 30), cell("svf", 31)], rules=known) == ("undecided", "")


def test_every_row_stands_beside_the_best_rule_of_its_task() -> None:
    known = {"sums": rule({"the first choice": 25}), "oldest": rule({"the last name": 35}, "oldest")}
    scores = [cell(row, right, task=task) for row, right in (("base", 30), ("svf", 60)) for task in ("sums", "oldest")]
    found = compare(pd.concat(scores), RESAMPLING, "base", rules=known).set_index(["row", "task"])
    base = found.loc[("base", "sums")]
    assert base["rule"] == "the first choice" and base["rule_mean"] == 0.25
    assert base["rule_diff"] == pytest.approx(0.05) and base["rule_low"] <= 0.05 <= base["rule_high"]
    mean = found.loc[("svf", MEAN_OVER_TASKS)]
    assert mean["rule"] == "the best rule of each task" and mean["rule_mean"] == pytest.approx(0.3)
    assert mean["rule_diff"] == pytest.approx(0.3)


def test_an_adapter_of_step_0_is_not_trained_if_it_is_that_of_all_seeds() -> None:
    scores = [cell("base", 30), cell("svf", 60, seed=0), cell("svf", 61, seed=1)]
    word, reason = verdict(scores, untrained={"sums-svf-0", "sums-svf-1"})
    assert word == "not trained" and reason == "validation chose step 0, so its adapter is as it began"
    assert verdict(scores, untrained={"sums-svf-0"}) == ("better", "")


def test_what_is_compared_with_an_untrained_row_is_not_better_than_a_trained_one() -> None:
    frame = pd.concat([cell("lora", 30), cell("svf", 60)])
    found = compare(frame, RESAMPLING, "lora", untrained={"sums-lora-0"}).set_index("row").loc["svf"]
    assert found["verdict"] == "not trained"
    assert found["reason"] == "validation chose step 0 for 'lora', which it is compared with"


def test_the_best_rule_is_the_one_that_is_right_most_often_and_its_name_decides_between_equals() -> None:
    best = rule({"the second choice": 40, "chance": 33, "the first choice": 40})
    assert (best.name, best.mean, best.among) == ("the first choice", 0.4, 3)
    assert rules.best_rules({"sums": pd.DataFrame(columns=["rule", "id", "value"])}) == {}


def test_a_rule_that_some_examples_do_not_fit_is_no_rule_of_the_task() -> None:
    lines = [{"rule": "the first choice", "id": f"sums-{number}", "value": 0.2} for number in range(4)]
    lines += [{"rule": "chance", "id": f"sums-{number}", "value": 0.5} for number in range(3)]
    best = rules.best_rule(pd.DataFrame(lines))
    assert (best.name, best.among) == ("the first choice", 1)


def test_a_rule_that_was_not_asked_an_example_is_one_sentence() -> None:
    short = rules.Rule("chance", pd.Series([0.5], index=["sums-0"]), 1)
    with pytest.raises(UserError, match="but it has none of 'sums-1'; run the stage heuristics again"):
        verdict([cell("base", 20), cell("svf", 40)], rules={"sums": short})


def test_verdicts_are_counted_and_every_one_has_a_number() -> None:
    assert counts(["better", "better", "not trained"]) == {**dict.fromkeys(VERDICTS, 0), "better": 2, "not trained": 1}
