"""The generated tasks, with the settings of the profile laptop."""

import importlib
import re
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path
from string import Formatter
from types import ModuleType

import pytest

from pipeline.core.artifacts import read_jsonl
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.core.types import SPLITS, Example
from pipeline.data.splits import fill, normalised, normalised_text
from stages.fetch import Tasks
from stages.prepare import TaskData, run

PARAMS = read_params(Path(importlib.import_module("pipeline").__file__).parent / "profiles" / "laptop.yaml")
TASKS = sorted(PARAMS["tasks"])


def module(task: str) -> ModuleType:
    return importlib.import_module(f"pipeline.tasks.{task}")


def settings(task: str) -> TaskData:
    return TaskData.read(PARAMS, {"task": task})


@cache
def splits(task: str) -> dict[str, list[Example]]:
    data = settings(task)
    options = module(task).Options.parse(data.options, "options")
    return fill(module(task).examples(data.seed, options), {split: getattr(data, split) for split in SPLITS})


def test_every_domain_has_a_trained_and_an_unseen_task():
    roles = [(entry["role"], settings(task).domain) for task, entry in PARAMS["tasks"].items()]
    assert sorted(roles) == [(role, kind) for role in ("trained", "unseen") for kind in ("code", "math", "reasoning")]


@pytest.mark.parametrize("task", TASKS)
def test_the_target_of_every_example_is_correct(task: str):
    for split, examples in splits(task).items():
        scores = module(task).score(examples, [example.target for example in examples])
        assert [score.id for score in scores] == [example.id for example in examples]
        assert all(score.correct and score.value == 1 and score.parsed for score in scores), split


@pytest.mark.parametrize("task", TASKS)
def test_the_target_of_another_example_is_mostly_wrong(task: str):
    examples = splits(task)["test"]
    targets = [example.target for example in examples]
    scores = module(task).score(examples, targets[1:] + targets[:1])
    assert sum(score.correct for score in scores) / len(scores) < 0.15


@pytest.mark.parametrize("task", TASKS)
def test_no_constant_answer_is_right_often(task: str):
    examples = splits(task)["test"]
    for target, _ in Counter(example.target for example in examples).most_common(3):
        scores = module(task).score(examples, [target] * len(examples))
        assert sum(score.correct for score in scores) / len(scores) <= 0.35, target


@pytest.mark.parametrize("task", TASKS)
def test_a_question_has_ten_wordings_and_more(task: str):
    asked = [example.messages[-1]["content"] for example in splits(task)["train"]]
    wordings = [re.compile(pattern_of(wording), re.DOTALL) for wording in module(task).WORDINGS]
    assert len(wordings) >= 10
    assert all(any(wording.fullmatch(text) for text in asked) for wording in wordings)
    assert all(any(wording.fullmatch(text) for wording in wordings) for text in asked)


def pattern_of(wording: str) -> str:
    """What matches a question in this wording, whatever its fields are."""
    parts = Formatter().parse(wording)
    return "".join(re.escape(text) + (".+" if field else "") for text, field, *_ in parts)


@pytest.mark.parametrize("task", TASKS)
def test_no_rule_without_a_model_is_right_often(task: str):
    examples = splits(task)["test"][:100]
    assert module(task).HEURISTICS
    for name, rule in module(task).HEURISTICS.items():
        scores = module(task).score(examples, [rule(example) for example in examples])
        assert sum(score.correct for score in scores) / len(scores) <= 0.35, name


# Without a word of Python, or with a wrong type, there is nothing to be read.
UNREADABLE = {("repairs", "the function as it stands")}


@pytest.mark.parametrize("task", TASKS)
def test_what_a_rule_answers_can_be_read(task: str):
    examples = splits(task)["test"][:20]
    for name, rule in module(task).HEURISTICS.items():
        scores = module(task).score(examples, [rule(example) for example in examples])
        assert (task, name) in UNREADABLE or all(score.parsed for score in scores), name


CHOICES = [task for task in TASKS if splits(task)["test"][0].choices]


@pytest.mark.parametrize("task", CHOICES)
def test_choices_stand_in_the_order_of_their_mention(task: str):
    for example in splits(task)["test"]:
        *others, last = example.choices.values()
        asked = example.messages[-1]["content"]
        assert any(", ".join(others) + between + last in asked for between in (", ", " or "))


@pytest.mark.parametrize("task", CHOICES)
def test_the_right_choice_stands_at_each_place_equally_often(task: str):
    for split, examples in splits(task).items():
        places = Counter(list(example.choices).index(example.meta["answer"]) for example in examples)
        assert len(places) == len(examples[0].choices), split
        assert max(places.values()) - min(places.values()) <= 0.03 * len(examples) + 1, split


def test_no_word_is_of_two_kinds_in_one_question():
    kinds = module("kinds")
    for example in splits("kinds")["train"]:
        named = [kind for kind, words in kinds.KINDS.items() for word in example.choices if word in words]
        assert len(named) == len(set(named)) == len(example.choices)
        assert all(len(alike & set(named)) <= 1 for alike in kinds.ALIKE)


def test_one_thing_only_helps_with_what_is_to_be_done():
    uses = module("uses")
    helps = {thing: group for group, listed in uses.USES.items() for thing in " ".join(listed.values()).split()}
    for example in splits("uses")["train"]:
        groups = [helps[thing] for thing in example.choices]
        assert len(groups) == len(set(groups))


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_examples_and_another_seed_others(task: str):
    options = module(task).Options.parse(settings(task).options, "options")
    first, again, other = (list(islice(module(task).examples(seed, options), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_prompt_stands_in_two_splits_of_any_tasks():
    texts = [normalised(example) for task in TASKS for examples in splits(task).values() for example in examples]
    assert len(texts) == len(set(texts)) == sum(getattr(settings(task), split) for task in TASKS for split in SPLITS)


def test_no_prompt_of_the_test_split_is_shown_in_a_worked_turn():
    shown = {
        normalised(Example("", (turn,), ""))
        for task in TASKS
        for example in splits(task)["test"]
        for turn in example.messages[:-1]
    }
    assert not shown & {normalised(example) for task in TASKS for example in splits(task)["test"]}


@pytest.mark.parametrize("task", TASKS)
def test_ids_are_unique(task: str):
    ids = [example.id for examples in splits(task).values() for example in examples]
    assert len(ids) == len(set(ids))


def among(answer: str, *choices: str) -> dict:
    return {"answer": answer, "choices": {choice: choice for choice in choices}}


GOLDEN = {
    "sums": ("12 + 30 = 42", "12 + 30 = 43", {"answer": "42"}),
    "groceries": ("6 * 7 = 42", "6 + 7 = 13", {"answer": "42"}),
    "kinds": ("The animal is dog.", "The animal is axe.", among("dog", "axe", "dog", "pear")),
    "uses": ("To dig, use the spade.", "To dig, use the comb.", among("spade", "comb", "spade", "lamp")),
    "alphabet": ("cloud comes first.", "train comes first.", among("cloud", "train", "cloud", "paper")),
    "calendar": ("It is Thursday.", "It is Friday.", among("Thursday", "Tuesday", "Thursday", "Friday")),
    "functions": (
        "```python\ndef keep(numbers):\n    return [n for n in numbers if n > 2]\n```",
        "```python\ndef keep(numbers):\n    return [n for n in numbers if n < 2]\n```",
        {"function": "keep", "tests": [[[[1, 2, 3]], [3]], [[[]], []]]},
    ),
    "repairs": (
        "def change(x):\n    return 9 - x",
        "def change(x):\n    return x - 9",
        {"function": "change", "tests": [[[1], 8], [[9], 0]]},
    ),
}


@pytest.mark.parametrize("task", GOLDEN)
def test_a_row_written_by_hand_is_scored_as_a_person_would(task: str):
    right, wrong, meta = GOLDEN[task]
    example = Example("golden", ({"role": "user", "content": "?"},), right, meta)
    assert [score.correct for score in module(task).score([example] * 3, [right, wrong, ""])] == [True, False, False]


def test_prepare_writes_four_splits_and_replaces_the_folder(tmp_path: Path):
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "stale").touch()
    data = settings("sums").model_copy(update={"train": 5, "validation": 4, "test": 3, "few_shot": 2})
    raw = tmp_path / "raw"
    raw.mkdir()
    metrics = run(task="sums", data=data, raw=raw, examples=folder)
    assert metrics == {"test": 3, "few_shot": 2, "validation": 4, "train": 5}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(f"{s}.jsonl" for s in SPLITS)
    for row in (row for split in SPLITS for row in read_jsonl(folder / f"{split}.jsonl")):
        assert set(row) == {"id", "messages", "target", "meta"}
        assert (row["meta"]["task"], row["meta"]["domain"]) == ("sums", "math")


SPLIT = {"splits": {"train": 40, "validation": 20, "test": 20, "few_shot": 5}}
DATA = {"domain": "math", "seed": 1, "options": {"smallest": 10, "largest": 99}}


def read(data: dict, splits: dict = SPLIT) -> TaskData:
    return TaskData.read({**splits, "tasks": {"sums": {"data": data}}}, {"task": "sums"})


def test_sizes_of_the_splits_are_shared_and_a_task_may_have_others():
    sizes = [(data.train, data.test) for data in (read(DATA), read({**DATA, "test": {"each": 3}, "train": "all"}))]
    assert sizes[0] == (40, 20) and (sizes[1][0], sizes[1][1].each) == ("all", 3)
    own = {**DATA, **SPLIT["splits"]}
    assert read(own, {}) == read(DATA)
    arguments = {"task": "sums"}
    assert TaskData.places({**SPLIT, "tasks": {"sums": {"data": DATA}}}, arguments) == ("splits", "tasks.sums.data")
    assert TaskData.places({"tasks": {"sums": {"data": own}}}, arguments) == ("tasks.sums.data",)


@pytest.mark.parametrize(
    ("data", "splits", "sentence"),
    [
        (
            DATA,
            {"splits": {**SPLIT["splits"], "tset": 3}},
            "'splits.tset' is not a known setting; did you mean 'test'?",
        ),
        (DATA, {"splits": {"train": 4}}, "'tasks.sums.data.validation' is missing"),
        ({**DATA, "trian": 3}, SPLIT, "'tasks.sums.data.trian' is not a known setting; did you mean 'train'?"),
    ],
)
def test_a_mistake_in_the_sizes_is_named_where_it_stands(data: dict, splits: dict, sentence: str):
    with pytest.raises(UserError) as caught:
        read(data, splits)
    assert sentence in str(caught.value)


def test_fetching_depends_on_the_tasks_alone():
    params = {**SPLIT, "tasks": {"sums": {"data": DATA}}}
    assert Tasks.places(params, {}) == ("tasks",)
    assert Tasks.read(params, {}).tasks == params["tasks"]


def test_a_larger_training_split_leaves_the_test_split_as_it_is():
    data = settings("sums")
    options = module("sums").Options.parse(data.options, "options")
    sizes = {"train": 10, "validation": 5, "test": 20, "few_shot": 5}
    small = fill(module("sums").examples(1, options), sizes)
    large = fill(module("sums").examples(1, options), sizes | {"train": 50})
    assert small["test"] == large["test"] and small["few_shot"] == large["few_shot"]


def test_a_task_that_runs_dry_is_said_in_a_sentence():
    options = module("sums").Options(smallest=1, largest=1)  # one sum, in as many wordings as differ by their words
    worded = {normalised_text(wording.format(a=1, b=1)) for wording in module("sums").WORDINGS}
    with pytest.raises(UserError, match=f"expected 20 different examples, got {len(worded)} from the task"):
        fill(module("sums").examples(1, options), {"train": 5, "validation": 5, "test": 5, "few_shot": 5})


def test_what_is_to_be_done_does_not_name_what_helps():
    for helps in importlib.import_module("pipeline.tasks.uses").USES.values():
        for use, things in helps.items():
            beginnings = {word[:4] for word in use.split() if len(word) > 3}
            assert not [
                thing for thing in things.split() if thing[:4] in beginnings or any(w in thing for w in beginnings)
            ]
