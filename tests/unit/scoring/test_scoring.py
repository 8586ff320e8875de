"""Reading numbers, choices and code off answers."""

from fractions import Fraction

import pytest

from pipeline.scoring import choices, code, numbers

PEOPLE = {name: name for name in ("Anna", "Ben", "Carl")}
COLOURS = {"A": "red", "B": "red car", "C": "blue"}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("42", 42),
        ("-7", -7),
        ("\u22127", -7),
        ("+7", 7),
        ("5 - 3 = 2", 2),
        ("5-3", 3),  # a subtraction, not a negative three
        ("(2)-3", 3),
        ("x = -3", -3),
        ("1,234,567", 1234567),
        ("1,2", 2),  # a list, not a thousands separator
        ("$12.50", Fraction("12.5")),
        ("-$12.50", Fraction("-12.5")),
        ("$-3", -3),
        ("It costs 12.50 dollars.", Fraction("12.5")),
        ("The sum is 122.", 122),
        ("37 + 85 = 122", 122),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("12/4 = 3", 3),
        ("1/0", None),
        ("50%", 50),
        ("12km", 12),
        ("The answer is 12, because 5 + 7 is 12 and 3 is not.", 12),
        ("Answer: 9\nThere are 3 more.", 9),
        ("The answer is 5. No, the answer is 6 of 7.", 6),
        ("5 is the answer: yes", 5),
        ("so \\boxed{18} units, 4 left", 18),
        ("#### 1,000", 1000),
        ("none at all", None),
        ("", None),
        ("answer:", None),
    ],
)
def test_the_number_of_an_answer(answer: str, value: Fraction | int | None):
    assert numbers.read(answer) == value


def test_numbers_are_compared_exactly():
    assert numbers.score("x", "0.3", "0.30").correct
    assert not numbers.score("x", "0.30000001", "0.3").correct
    assert numbers.score("x", "nothing", "0").parsed is None


def test_thousands_of_digits_are_read_without_an_error():
    assert numbers.read("9" * 6000) is None or numbers.read("9" * 6000) > 0


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Anna", "Anna"),
        ("anna is the oldest.", "Anna"),
        ("The answer is Ben, not Carl.", "Ben"),
        ("Anna is older than Ben. The answer is: Ben", "Ben"),
        ("Anna is the oldest. Ben is the youngest.", "Anna"),
        ("Let me think. Carl is.", "Carl"),
        ("Anna is older than Ben.", None),
        ("Anna, Ben, Carl", None),
        ("Annabel", None),
        ("Anna's", "Anna"),
        ("Zoe", None),
        ("", None),
    ],
)
def test_the_name_of_an_answer(answer: str, label: str | None):
    assert choices.read(answer, PEOPLE) == label


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B) red car", "B"),
        ("B. red car", "B"),
        ("The answer is C.", "C"),
        ("red car", "B"),
        ("red", "A"),
        ("A dog barks.", None),
        ("b", None),
        ("A) or B)", None),
        ("Answer: B because red is not it", "B"),
    ],
)
def test_the_label_of_an_answer(answer: str, label: str | None):
    assert choices.read(answer, COLOURS) == label


def test_listing_all_choices_is_no_answer():
    score = choices.score("x", "Anna, Ben or Carl", "Anna", PEOPLE)
    assert not score.correct and score.parsed is None


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ("```python\ndef f(x):\n    return x\n```", "def f(x):\n    return x"),
        ("```\ndef f(x):\n    return x\n```\nThat is it.", "def f(x):\n    return x"),
        ("Sure:\n\n```python\ndef f(x):\n    return x", "def f(x):\n    return x"),
        ("def f(x):\n    return x", "def f(x):\n    return x"),
        ("Here:\nimport re\n\ndef f(x):\n    return x", "import re\n\ndef f(x):\n    return x"),
        ("```python\ndef g(x):\n    return x\n```", None),
        ("return x", None),
        ("", None),
    ],
)
def test_the_code_of_an_answer(answer: str, source: str | None):
    assert code.read(answer, "f") == source


def test_code_is_judged_by_every_test():
    tests = [("x", "f", [[[1], 2], [[2], 3]])]
    right, half = ("def f(x): return x + 1", "def f(x): return 2")
    assert code.score(tests, [right])[0].correct
    score = code.score(tests, [half])[0]
    assert (score.value, score.correct, score.parsed) == (0.5, False, half)


@pytest.mark.parametrize(
    ("got", "expected", "alike"),
    [
        (1, 1, True),
        (True, 1, False),
        (1, True, False),
        (1.0, 1, False),
        (2, 2.0, True),
        (0.1 + 0.2, 0.3, True),
        (0.31, 0.3, False),
        ([1, 2], [1, 2], True),
        ((1, 2), [1, 2], False),
        ([1, 2, 3], [1, 2], False),
        ([[True]], [[1]], False),
        (None, None, True),
        ("a", "a", True),
        (float("nan"), 1.0, False),
    ],
)
def test_values_are_compared_with_their_types(got: object, expected: object, alike: bool):
    assert code.same(got, expected) is alike


def test_scores_come_in_the_order_of_the_answers():
    tests = [(str(i), "f", [[[1], i]]) for i in range(8)]
    answers = [f"def f(x):\n    return {i}" if i % 3 else "no code" for i in range(8)]
    scores = code.score(tests, answers)
    assert [score.id for score in scores] == [str(i) for i in range(8)]
    assert [score.correct for score in scores] == [bool(i % 3) for i in range(8)]


@pytest.mark.parametrize(
    "answer", ["C) blue", "**C**", "(C) blue, for red car is none", "C. It is not red.", " C: red?"]
)
def test_a_letter_that_begins_the_answer_decides(answer):
    assert choices.read(answer, COLOURS) == "C"


def test_an_example_asks_in_the_form_that_is_read_back():
    example = choices.example("x", "Which?", ["red", "red car", "blue, not red"], 2)
    assert example.messages[-1]["content"] == "Which?\nA) red\nB) red car\nC) blue, not red"
    assert choices.score("x", example.target, example.meta["answer"], example.meta["choices"]).correct
