"""Rules that need no model: what they say, and how right they are."""

import pandas as pd
import pytest

from pipeline.core.artifacts import write_jsonl
from pipeline.core.types import Example
from pipeline.evaluation.heuristics import applied
from pipeline.scoring import choices, numbers
from stages import heuristics


def chosen(number: int, texts: list[str], right: int) -> Example:
    return choices.example(f"c{number}", f"Which of {number}?", texts, right)


def score_choices(examples, answers):
    return [choices.score(e.id, a, e.meta["answer"], e.meta["choices"]) for e, a in zip(examples, answers, strict=True)]


def score_numbers(examples, answers):
    return [numbers.score(e.id, a, e.meta["answer"]) for e, a in zip(examples, answers, strict=True)]


def accuracies(rules) -> dict[str, float]:
    frame = pd.DataFrame([vars(rule) for rule in rules])
    return frame.groupby("rule", sort=False)["value"].mean().to_dict()


TRAIN = [chosen(0, ["red", "blue"], 1), chosen(1, ["cat", "dog"], 1), chosen(2, ["one", "two"], 0)]
TEST = [
    chosen(3, ["a", "b", "c"], 1),
    chosen(4, ["d", "e", "f"], 2),
    chosen(5, ["g", "h"], 1),
    chosen(6, ["i", "j"], 0),
]


def test_places_chance_and_the_commonest_answer_of_choices():
    found = accuracies(applied(TRAIN, TEST, score_choices, {}))
    assert found == {
        "the commonest answer in training": 0.5,  # B
        "the first choice": 0.25,
        "the second choice": 0.5,
        "the third choice": 0.25,  # of two choices, there is no third: wrong
        "the last choice": 0.5,
        "chance": pytest.approx((1 / 3 + 1 / 3 + 1 / 2 + 1 / 2) / 4),
    }


def test_a_task_adds_rules_of_its_own_that_are_scored_as_answers_are():
    def asked(number: int, a: int, b: int) -> Example:
        words = f"What is {a} plus {b}?"
        return Example(str(number), ({"role": "user", "content": words},), str(a + b), {"answer": str(a + b)})

    last = {"the last number": lambda example: example.messages[-1]["content"].split()[-1].rstrip("?")}
    test = [asked(0, 0, 7), asked(1, 3, 4), asked(2, 0, 5)]
    assert accuracies(applied([asked(9, 1, 6), asked(8, 3, 4), asked(7, 1, 1)], test, score_numbers, last)) == {
        "the commonest answer in training": pytest.approx(2 / 3),  # 7
        "the last number": pytest.approx(2 / 3),
    }


def test_where_no_two_answers_are_alike_none_is_commonest():
    assert applied([], [], score_choices, {}) == []
    assert "the commonest answer in training" not in accuracies(applied(TRAIN[1:], TEST, score_choices, {}))


def test_the_stage_writes_a_line_for_each_rule_and_example(tmp_path, monkeypatch):
    from pipeline.tasks import arc_easy

    monkeypatch.setattr(arc_easy, "HEURISTICS", {"always C": lambda example: "C"}, raising=False)
    for name, examples in (("train", TRAIN), ("test", TEST)):
        write_jsonl(tmp_path / f"{name}.jsonl", (vars(example) for example in examples))
    found = heuristics.run(
        task="arc_easy", train=tmp_path / "train.jsonl", test=tmp_path / "test.jsonl", rules=tmp_path / "rules.parquet"
    )
    frame = pd.read_parquet(tmp_path / "rules.parquet")
    assert list(frame.columns) == ["rule", "id", "value", "answer"]
    assert found["always C"] == 0.25 and len(frame) == 4 * len(found)
    assert frame[frame["rule"] == "chance"]["answer"].isna().all()
