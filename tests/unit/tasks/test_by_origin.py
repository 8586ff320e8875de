"""Tasks whose training data no mirror has, but for a sample of Alpaca: rows become examples, sources are pinned."""

import importlib
from typing import Any

import pytest

from pipeline.core.types import Example
from pipeline.data.splits import divide
from pipeline.tasks import alpaca, commonsense_170k, math_10k, ultrafeedback

KINDS = ["editing", "explaining", "naming", "writing"]
TASKS = [
    "alpaca",
    *(f"alpaca_{kind}" for kind in KINDS),
    "chat",
    "commonsense_170k",
    "evol_instruct",
    "flan",
    "math_10k",
    "ultrafeedback",
]


def answer(text: str, *ratings: str, overall: float = 5.0) -> dict[str, Any]:
    aspects = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    rated = {aspect: {"Rating": rating} for aspect, rating in zip(aspects, ratings, strict=False)}
    return {"response": text, "overall_score": overall, "annotations": rated}


@pytest.mark.parametrize("task", TASKS)
def test_every_table_has_one_pinned_origin(task: str) -> None:
    module = importlib.import_module(f"pipeline.tasks.{task}")
    for name, table in module.TABLES.items():
        assert all(len(origin.revision) == 40 for origin in table.origins), name
        assert name.startswith("test") or table.origins, name
        assert not table.mirror or name.startswith("test") or table.origins[0].sha256, name


def test_commonsense_170k_trains_on_the_union_and_is_tested_on_its_subsets() -> None:
    options = commonsense_170k.Options.parse({"subsets": ["boolq", "hellaswag"]}, "options")
    assert commonsense_170k.needed(options) == {"train_170k", "test_boolq", "test_hellaswag"}
    ending = (
        "Please choose the correct ending to complete the given sentence: Removing ice: the man\n\n"
        "Ending1: sleeps. Ending2: scrapes.\n\nAnswer format: ending1/ending2"
    )
    boolq = (
        "Please answer the following question with true or false, question: is ice cold?\n\nAnswer format: true/false"
    )
    rows = [
        {"instruction": ending, "output": "the correct answer is ending2", "answer": "ending2"},
        {"instruction": boolq, "output": "the correct answer is true", "answer": "true"},
    ]
    splits = commonsense_170k.native_splits({"train_170k": rows, "test_boolq": rows[1:]}, options)
    assert [example.target for example in splits["train"]] == [row["output"] for row in rows]
    # known by what is asked: a test row with the same question is found in the training set
    assert splits["train"][0].meta["question"] == "Removing ice: the man"
    assert splits["train"][1].meta["question"] == splits["test"][0].meta["question"] == "is ice cold?"
    assert [one.correct for one in commonsense_170k.score(splits["test"], ["the correct answer is true"])] == [True]


def test_math_10k_trains_on_steps_and_ends_with_what_its_scorer_reads() -> None:
    options = math_10k.Options.parse({"subsets": ["aqua", "svamp"]}, "options")
    assert math_10k.needed(options) == {"train_10k", "test_aqua", "test_svamp"}
    rows = [
        {"instruction": "Two and two?", "output": "2 + 2 = 4. The answer is 4.", "answer": "4.0"},
        {
            "instruction": "Which is half of 4? Answer Choices: (A) 1 (B) 2",
            "output": "4 / 2 = 2. Therefore, the answer is B.",
            "answer": "B",
        },
    ]
    train = math_10k.native_splits({"train_10k": rows}, options)["train"]
    assert [example.target for example in train] == ["2 + 2 = 4. The answer is 4.", "4 / 2 = 2. The answer is (B)."]
    assert all(one.correct for one in math_10k.score(train, [example.target for example in train]))


def test_ultrafeedback_takes_the_answer_of_the_highest_mean_rating() -> None:
    """And not that of the highest overall score, which is wrong for some."""
    options = ultrafeedback.Options.parse({"sources": ["flan"]}, "options")
    answers = [
        answer("bad", "1", "1", "1", "1", overall=10.0),
        answer("best", "5", "N/A", "5", "4"),
        answer("good", "4", "4", "4", "4"),
        answer(" ", "5", "5", "5", "5"),
    ]
    rows = [{"instruction": "Say it.", "completions": answers}, {"instruction": "Say nothing.", "completions": []}]
    assert ultrafeedback.needed(options) == {"train_flan"}
    splits = ultrafeedback.native_splits({"train_flan": rows}, options)
    assert [(one.messages[-1]["content"], one.target, one.meta["subset"]) for one in splits["train"]] == [
        ("Say it.", "best", "flan")
    ]
    assert not splits["test"]


def test_alpaca_asks_with_the_input() -> None:
    rows = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "Hello."},
        {"instruction": "Be silent.", "input": "", "output": ""},
    ]
    assert alpaca.needed(alpaca.Options()) == {"train_all"}
    splits = alpaca.native_splits({"train_all": rows}, alpaca.Options())
    assert [one.messages[-1]["content"] for one in splits["train"]] == ["Add.\n\n1, 2", "Greet."]
    assert [one.correct for one in alpaca.score(splits["train"], ["3", " "])] == [True, False]


def test_each_instruction_of_alpaca_is_of_one_kind() -> None:
    asked = {
        "editing": [("Rewrite it.", "It is cold."), ("Name the animal.", "A cat sat.")],
        "explaining": [("Describe a cat.", ""), ("What, then, is ice?", "<noinput>"), ("how do fish breathe?", "")],
        "naming": [("Name three animals.", ""), ("List: the colours.", "No input.")],
        "writing": [("Write a poem.", ""), ("Please greet me.", "")],
    }
    rows = [
        {"instruction": instruction, "input": given, "output": kind}
        for kind, several in asked.items()
        for instruction, given in several
    ]
    for kind in KINDS:
        task = importlib.import_module(f"pipeline.tasks.alpaca_{kind}")
        options = task.Options.parse({"sample": "random_9k", "kind": kind}, "options")
        assert task.needed(options) == {"train_random_9k"}
        train = task.native_splits({"train_random_9k": rows}, options)["train"]
        assert [example.target for example in train] == [kind] * len(asked[kind])


def test_training_may_have_all_that_validation_leaves() -> None:
    native = {
        split: [Example(f"{split}-{n}", ({"role": "user", "content": f"{split} {n}"},), "") for n in range(count)]
        for split, count in (("train", 20), ("test", 4))
    }
    sizes = {"train": "rest", "validation": 3, "test": "all", "few_shot": 0}
    splits, _ = divide(native, sizes, 0, ())
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [17, 3, 4]
    assert {one.id for one in splits["train"] + splits["validation"]} == {one.id for one in native["train"]}
    halves, _ = divide(native, {**sizes, "train": "all"}, 0, ())
    assert len(halves["train"]) == 10
    assert halves["train"] == [one for one in splits["train"] if one in halves["train"]]
