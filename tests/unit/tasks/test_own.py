"""Rows of one's own: what they are asked as, how answers to them are scored, and what is said of a row that misfits."""

import json
from pathlib import Path

import pytest

from pipeline.core.artifacts import read_examples
from pipeline.core.errors import UserError
from pipeline.data.tasks import OWN, built_in, is_built_in, task_module
from pipeline.tasks import own
from stages import prepare_own

ROWS = {"path": "mine.jsonl", "prompt": "question", "answer": "answer", "scorer": "exact"}
SUM = {"question": "What is 3 + 4?", "answer": 7}
CAPITAL = {"question": "The capital of France?", "answer": "Paris", "choices": ["Rome", "Paris", "Oslo"]}
DOUBLE = {"question": "Write double(x).", "answer": "def double(x):\n    return 2 * x", "function": "double"}
DOUBLE = {**DOUBLE, "tests": [[[2], 4], [[0], 0]]}


def settings(**changes: object) -> own.Rows:
    return own.Rows.parse({**ROWS, **changes}, "tasks.mine.data.rows")


# Rows, settings, a right answer, a wrong one.
CASES = {
    "numbers": (SUM, {"scorer": "numbers"}, "3 + 4 = 7", "It is 8."),
    "thousands": ({"question": "How many?", "answer": "1,250"}, {"scorer": "numbers"}, "1250", "1.25"),
    "choices": (CAPITAL, {"scorer": "choices"}, "B) Paris", "A) Rome"),
    "choices by label": ({**CAPITAL, "answer": "C"}, {"scorer": "choices"}, "Oslo", "Paris"),
    "labelled choices": (
        {**CAPITAL, "choices": {"1": "Rome", "2": "Paris"}, "answer": "2"},
        {"scorer": "choices"},
        "Paris",
        "Rome",
    ),
    "latex": ({"question": "Half?", "answer": "\\frac{1}{2}"}, {"scorer": "latex"}, "$\\boxed{0.5}$", "$\\boxed{2}$"),
    "code": (DOUBLE, {"scorer": "code"}, "```python\ndef double(x):\n    return x + x\n```", "def double(x): return x"),
    "exact": (CAPITAL, {"scorer": "exact"}, " paris. ", "Paris, France"),
    "pattern": (
        {"question": "Colour?", "answer": "colour: red"},
        {"scorer": "pattern", "pattern": r"colour: (\w+)"},
        "I think: colour: blue, no, colour: Red",
        "red",
    ),
    "pattern without a group": (
        {"question": "Year?", "answer": "1789"},
        {"scorer": "pattern", "pattern": r"\d{4}"},
        "in 1789",
        "in 1788",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_answers_are_scored_as_the_settings_say(case: str) -> None:
    row, changes, right, wrong = CASES[case]
    (example,) = own.examples("mine", [row], settings(**changes))
    assert [score.correct for score in own.score([example] * 3, [right, wrong, ""])] == [True, False, False]
    (reference,) = own.score([example], [example.target])
    assert reference.correct
    assert reference.marked
    assert not own.score([example], [""])[0].marked


def test_scorers_may_stand_side_by_side() -> None:
    chosen = [CASES[case] for case in ("numbers", "code", "choices", "code", "exact")]
    examples = [own.examples("mine", [row], settings(**changes))[0] for row, changes, _, _ in chosen]
    assert all(score.correct for score in own.score(examples, [right for _, _, right, _ in chosen]))
    assert not any(score.correct for score in own.score(examples, [wrong for _, _, _, wrong in chosen]))


def test_a_prompt_may_be_made_of_several_columns() -> None:
    row = {"context": "Anna is 7.", "question": "How old is Anna?", "answer": "7"}
    asked = settings(prompt="{context}\n{question}", scorer="numbers", system="Be brief.")
    (example,) = own.examples("mine", [row], asked)
    assert [turn["content"] for turn in example.messages] == ["Be brief.", "Anna is 7.\nHow old is Anna?"]


MISFITS = {
    "no column": ({"question": "x"}, {}, "the column 'answer', got question"),
    "no text": ({**SUM, "answer": None}, {}, "a text or a number as 'answer', got 'None'"),
    "an empty text": ({**SUM, "question": " "}, {}, "a text or a number as 'question'"),
    "a truth value": ({**SUM, "answer": True}, {}, "a text or a number as 'answer', got 'True'"),
    "no number": (CAPITAL, {"scorer": "numbers"}, "a number as 'answer', got 'Paris'"),
    "no choice": ({**CAPITAL, "answer": "Bern"}, {"scorer": "choices"}, "one of the choices as the answer, got 'Bern'"),
    "one choice": ({**CAPITAL, "choices": ["Paris"]}, {"scorer": "choices"}, "2 to 26 choices as 'choices'"),
    "no tests": ({**DOUBLE, "tests": []}, {"scorer": "code"}, "pairs as 'tests'"),
    "tests of another form": ({**DOUBLE, "tests": [[2, 4]]}, {"scorer": "code"}, "pairs as 'tests'"),
    "a list": ([1, 2], {}, "a JSON object"),
    "a template's column": (SUM, {"prompt": "{contxt}"}, "the column 'contxt'"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_row_that_misfits_is_one_sentence_with_its_line(case: str) -> None:
    row, changes, said = MISFITS[case]
    good = {**SUM, **CAPITAL, **DOUBLE, "answer": SUM["answer"]} if changes.get("scorer") != "choices" else CAPITAL
    with pytest.raises(UserError) as raised:
        own.examples("mine", [good, row] if "prompt" not in changes else [row], settings(**changes))
    assert said in str(raised.value)
    assert "line 2 of mine.jsonl" in str(raised.value) or "prompt" in changes


@pytest.mark.parametrize("pattern", ["", "(", "*"])
def test_a_pattern_has_to_be_one(pattern: str) -> None:
    with pytest.raises(UserError, match="expected a regular expression"):
        own.examples("mine", [SUM], settings(scorer="pattern", pattern=pattern))


def test_a_name_without_a_file_is_scored_by_the_module_of_own_rows() -> None:
    assert is_built_in("sums")
    assert not is_built_in("mine")
    assert not is_built_in(OWN)
    assert task_module("mine") is own
    with pytest.raises(UserError, match="names the task 'mine', which has neither a file nor rows of its own"):
        built_in("mine")


def prepared(folder: Path, rows: list[dict], **changes: object) -> dict[str, list]:
    """The splits that the stage makes of some rows."""
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sizes = {"train": "rest", "validation": 4, "test": 5, "few_shot": 3}
    asked = {**ROWS, "scorer": "numbers", "worked": 2}
    data = prepare_own.OwnData.parse(
        {"domain": "math", "seed": 0, **sizes, "rows": asked, **changes}, "tasks.mine.data"
    )
    prepare_own.run(task="mine", rows=path, data=data, examples=folder / "made")
    return {split: read_examples(folder / f"made/{split}.jsonl") for split in sizes}


NUMBERED = [{"question": f"What is {number} + 1?", "answer": number + 1} for number in range(30)]


def test_rows_are_divided_and_solved_ones_stand_before_each_question(tmp_path: Path) -> None:
    splits = prepared(tmp_path, [*NUMBERED, *NUMBERED[:6]])
    assert {split: len(several) for split, several in splits.items()} == {
        "train": 18,
        "validation": 4,
        "test": 5,
        "few_shot": 1,
    }
    asked = [example.messages[-1]["content"] for several in splits.values() for example in several]
    assert len(set(asked)) == len(asked) == 28
    begun = {tuple(turn["content"] for turn in example.messages[:-1]) for example in splits["test"] + splits["train"]}
    (shown,) = begun
    assert len(shown) == 4
    assert not set(shown) & set(asked)
    assert splits["test"][0].meta["task"] == "mine"


def test_the_order_is_the_seeds(tmp_path: Path) -> None:
    def asked(folder: str, seed: int) -> list[str]:
        (tmp_path / folder).mkdir()
        return [example.id for example in prepared(tmp_path / folder, NUMBERED, seed=seed)["test"]]

    assert asked("a", 0) == asked("b", 0) != asked("c", 1)


def test_too_few_rows_and_a_taken_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected more than 12 different rows in .*, got 6"):
        prepared(tmp_path, NUMBERED[:6] * 5)
    with pytest.raises(UserError, match="expected a new name for rows of your own, got 'sums'"):
        data = {"domain": "math", "seed": 0, "train": 1, "validation": 1, "test": 1, "few_shot": 1, "rows": ROWS}
        settings_of = prepare_own.OwnData.parse(data, "tasks.sums.data")
        prepare_own.run(task="sums", rows=tmp_path / "mine.jsonl", data=settings_of, examples=tmp_path / "made")
