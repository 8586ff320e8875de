"""Every task's own targets give the right answer where the task asks for it."""

import importlib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import read_params
from pipeline.core.types import Example
from pipeline.data.tasks import OWN

PIPELINE = Path(importlib.import_module("pipeline").__file__).parent
# Rows of one's own stand in no profile: test_own.py says the same of each of their scorers.
TASKS = sorted(path.stem for path in (PIPELINE / "tasks").glob("[a-z]*.py") if path.stem != OWN)
PROFILES = [read_params(path) for path in sorted((PIPELINE / "profiles").glob("*.yaml"))]
SOME = 200  # examples of a task that draws them

CHOICES = "Answer1: rain Answer2: snow\n\nAnswer format: answer1/answer2"
COMMONSENSE = [
    {
        "instruction": f"Please choose the correct answer to the question: What is cold?\n\n{CHOICES}",
        "answer": "answer2",
    },
    {"instruction": "Please answer with true or false, question: is ice cold?", "answer": "true"},
]
PROBLEMS = [
    {"instruction": "Two and two?", "output": "2 + 2 = 4. The answer is 4.", "answer": "4.0"},
    {"instruction": "A third of 5.5?", "output": "That is 5.5 / 3.", "answer": "1.8333333333333333"},
    {
        "instruction": "Half of 4? Answer Choices: (A) 1 (B) 2",
        "output": "4 / 2 = 2. Therefore, the answer is B.",
        "answer": "B",
    },
]
ALPACA = [
    {"instruction": "Add.", "input": "1, 2", "output": "3"},
    {"instruction": "What is ice?", "input": "", "output": "Water."},
    {"instruction": "Name a colour.", "input": "", "output": "Red."},
    {"instruction": "Write a greeting.", "input": "", "output": "Hello."},
]
INSTRUCTIONS = [{"instruction": "Greet.", "completions": [{"response": "Hello, all of you.", "annotations": {}}]}]
SCIENCE = [
    {"id": "a", "question": "Cold?", "choices": {"text": ["fire", "snow"], "label": ["1", "2"]}, "answerKey": "2"}
]
PHOTOGRAPHED: dict[str, list[dict[str, Any]]] = {
    "train": [],
    "answers_train": [],
    "test": [{"question": "what is sold?", "question_id": 7, "image_id": "12"}],
    "answers_test": [{"question_id": 7, "answers": [{"answer": "Ice"}] * 10}],
}
TESTED = {"entry_point": "f", "base_input": [[1]], "plus_input": [[2]], "atol": 0}
# task: options, and rows of its tables
ROWS: dict[str, tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]] = {
    "alpaca": ({}, {"train_all": ALPACA}),
    "alpaca_editing": ({"kind": "editing"}, {"train_all": ALPACA}),
    "alpaca_explaining": ({"kind": "explaining"}, {"train_all": ALPACA}),
    "alpaca_naming": ({"kind": "naming"}, {"train_all": ALPACA}),
    "alpaca_writing": ({"kind": "writing"}, {"train_all": ALPACA}),
    "alpaca_eval": (
        {},
        {"test": [{"instruction": "Greet.", "output": "Hello.", "generator": "model", "dataset": "own"}]},
    ),
    "arc_challenge": ({}, {"test": SCIENCE, "train": [{**COMMONSENSE[0]}]}),
    "arc_easy": ({}, {"test": SCIENCE}),
    "arithmetic": (
        {"subsets": ["aqua"]},
        {"train_steps": PROBLEMS, "train_mawps": [{"original_text": "And 3 more?", "equation": "x=2+3", "ans": 5.0}]},
    ),
    "chat": ({"sources": ["sharegpt"]}, {"train_sharegpt": INSTRUCTIONS}),
    "commonsense": (
        {"subsets": ["boolq", "hellaswag"]},
        {
            "test_boolq": COMMONSENSE,
            "test_hellaswag": [
                {"activity_label": "Ice", "ctx": "A man", "endings": ["sleeps.", "slips."], "label": "1"}
            ],
        },
    ),
    "commonsense_170k": ({"subsets": ["boolq"]}, {"train_170k": COMMONSENSE}),
    "evol_instruct": ({"sources": ["evol_instruct"]}, {"train_evol_instruct": INSTRUCTIONS}),
    "flan": ({"sources": ["flan"]}, {"train_flan": INSTRUCTIONS}),
    "glue": (
        {"subset": ["sst2", "stsb"]},
        {
            "train_sst2": [{"sentence": "A joy.", "label": 1}],
            "train_stsb": [{"sentence1": "A cat.", "sentence2": "A dog.", "label": 2.4}],
            "test_sst2": [],
            "test_stsb": [],
        },
    ),
    "gsm8k": ({}, {"train": [{"question": "How many?", "answer": "Half of 48 is <<48/2=24>>24.\n#### 1,024"}]}),
    "humaneval": (
        {},
        {"test": [{**TESTED, "task_id": "a", "prompt": "def f(x):\n", "canonical_solution": "    return x\n"}]},
    ),
    "math": (
        {},
        {
            "train": [
                {"problem": "Half?", "level": "1", "type": "Algebra", "solution": "It is $\\boxed{\\frac12}$, for 1/2."}
            ]
        },
    ),
    "math_10k": ({"subsets": ["aqua"]}, {"train_10k": PROBLEMS}),
    "mbpp_pro": (
        {},
        {
            "train": [],
            "test": [
                {
                    **TESTED,
                    "task_id": "Mbpp/9",
                    "prompt": '"""\nGive x.\nassert f(1) == 1\n"""\n',
                    "canonical_solution": "def f(x): return x",
                    "assertion": "assert f(1) == 1",
                }
            ],
        },
    ),
    "okvqa": ({"pictures": "photographs"}, PHOTOGRAPHED),
    "textvqa": ({"pictures": "photographs"}, PHOTOGRAPHED),
    "ultrafeedback": ({"sources": ["flan"]}, {"train_flan": INSTRUCTIONS}),
}


def examples(task: str) -> list[Example]:
    """Some examples of a task: drawn with the options that a profile gives it, or made of rows of its tables."""
    module = importlib.import_module(f"pipeline.tasks.{task}")
    if hasattr(module, "examples"):
        data = next(data for profile in PROFILES if "options" in (data := _data(profile, task)))
        return list(islice(module.examples(1, module.Options.parse(data["options"], "options")), SOME))
    options, tables = ROWS[task]
    splits = module.native_splits(tables, module.Options.parse(options, "options"))
    return [example for several in splits.values() for example in several]


def _data(profile: dict[str, Any], task: str) -> dict[str, Any]:
    return ((profile.get("tasks") or {}).get(task) or {}).get("data") or {}


@pytest.mark.parametrize("task", TASKS)
def test_the_targets_of_every_task_stand_where_it_asks_for_them(task: str) -> None:
    several = examples(task)
    assert several
    scores = importlib.import_module(f"pipeline.tasks.{task}").score(several, [example.target for example in several])
    assert [(score.correct, score.marked) for score in scores] == [(True, True)] * len(several)


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_that_says_nothing_has_no_mark(task: str) -> None:
    several = examples(task)[:1]
    (score,) = importlib.import_module(f"pipeline.tasks.{task}").score(several, [""])
    assert (score.correct, score.marked, score.parsed) == (False, False, None)


@pytest.mark.parametrize("task", ["gsm8k", "arithmetic", "math"])
def test_where_a_mark_is_asked_for_the_last_number_of_a_text_is_none(task: str) -> None:
    """A model that works out the answer on the way, and ends elsewhere, has not answered."""
    several = examples(task)[:1]
    answer = several[0].meta["answer"]
    (score,) = importlib.import_module(f"pipeline.tasks.{task}").score(several, [f"So it is ${answer}$ then, I think."])
    assert (score.correct, score.marked) == (True, False)
