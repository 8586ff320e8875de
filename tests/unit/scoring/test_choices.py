"""Reading choices off answers: by kinds, each with its neighbours."""

import time

import pytest

from pipeline.scoring import choices

PEOPLE = {name: name for name in ("Anna", "Ben", "Carl")}
COLOURS = {"A": "red", "B": "red car", "C": "blue"}
METALS = {"A": "copper", "B": "silver", "C": "iron", "D": "gold"}
YES_OR_NO = {"A": "yes", "B": "no"}


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
        ("Not Anna. It is Ben.", "Ben"),
        ("Anna is not the oldest. Carl is.", "Carl"),
        ("Neither Anna nor Ben.", None),
        ("**Carl** is the oldest.", "Carl"),
        ("\\boxed{\\text{Ben}}", "Ben"),
        ("<answer>Ben</answer>, older than Anna", "Ben"),
    ],
)
def test_the_name_of_an_answer(answer: str, label: str | None) -> None:
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
        ("C) blue", "C"),
        ("**C**", "C"),
        ("(C) blue, for red car is none", "C"),
        ("C. It is not red.", "C"),
        (" C: red?", "C"),
    ],
)
def test_the_label_of_an_answer(answer: str, label: str | None) -> None:
    assert choices.read(answer, COLOURS) == label


KINDS = {
    "alone": [("B", "B"), ("B\r\n", "B"), ("[C]", "C"), ("{C}", "C"), ('"C"', "C"), ("**B**", "B"), ("B,", "B")],
    "with its text": [
        ("C - iron", "C"),
        ("C – iron", "C"),
        ("b) silver", "B"),
        ("(b) silver", "B"),
        ("[C] iron", "C"),
        ("B: silver", "B"),
        ("It must be gold.", "D"),
        ("a) copper or b) silver", None),
    ],
    "boxes and tags": [
        ("The final answer is: $\\boxed{C}$", "C"),
        ("$\\boxed{\\text{D}}$", "D"),
        ("\\boxed{\\textbf{(D)}}", "D"),
        ("\\boxed{ \\mathrm{D} }", "D"),
        ("Answer: \\boxed{D) gold}", "D"),
        ("\\boxed{gold}", "D"),
        ("\\fbox{B}", "B"),
        ("<answer>C</answer>", "C"),
        ("<answer> (C) iron </answer> is no B", "C"),
        ("\\boxed{\\Delta E} grows, so\n**Answer: D**", "D"),
        ("\\boxed{7} and so D.", "D"),
    ],
    "after a mark": [
        ("Answer: C.", "C"),
        ("ANSWER IS D. Not A.", "D"),
        ("The answer is B. Many would take A instead.", "B"),
        ("**Answer: D**", "D"),
        ("**Answer:** (C)", "C"),
        ("**Answer**: [C]", "C"),
        ("### Answer\n\nC", "C"),
        ("The correct answer is (c)", "C"),
        ("The correct answer is c.", "C"),
        ("The correct answer is option C.", "C"),
        ("The answer is the letter 'C'", "C"),
        ("The answer is probably D as A is soft.", "D"),
        ("The answer is not A but B.", "B"),
        ("The answer is a metal: gold", "D"),
        ("The answer is in the list.\nIt is silver.", "B"),
    ],
    "said of it": [
        ("Option B is correct.", "B"),
        ("Option A is wrong. Option B is correct.", "B"),
        ("Of these, (B) is the best choice; A is not.", "B"),
        ("A is incorrect, B is false, and C is the right answer.", "C"),
        ("If B is correct, gold is not.\nC is correct.", "C"),
        ("I would go for B because of its shine.", "B"),
        ("I choose D", "D"),
        ("I pick A over all", "A"),
        ("My choice: (B)", "B"),
        ("It is not A.", None),
        ("Choose A or choose B", None),
    ],
    "a further question": [
        ("The answer is B.\n\nQuestion: Which is C?\nThe answer is C.", "B"),
        ("Answer: B\nUser: and now?\nAnswer: A", "B"),
    ],
    "nothing": [
        ("", None),
        ("None of these.", None),
        ("A metal that shines", None),
        ("Vitamin D", "D"),
    ],
}


@pytest.mark.parametrize(
    ("answer", "label"),
    [pytest.param(*case, id=f"{kind}: {case[0]}") for kind, cases in KINDS.items() for case in cases],
)
def test_a_choice_is_found_in_what_models_write(answer: str, label: str | None) -> None:
    assert choices.read(answer, METALS) == label


def test_a_text_wins_over_a_label_that_begins_it() -> None:
    assert choices.read("The answer is A dog", {"A": "cat", "B": "A dog"}) == "B"
    assert choices.read("The answer is no", YES_OR_NO) == "B"


def test_listing_all_choices_is_no_answer() -> None:
    score = choices.score("x", "Anna, Ben or Carl", "Anna", PEOPLE)
    assert not score.correct and score.parsed is None


def test_an_example_asks_in_the_form_that_is_read_back() -> None:
    example = choices.example("x", "Which?", ["red", "red car", "blue, not red"], 2)
    assert example.messages[-1]["content"] == "Which?\nA) red\nB) red car\nC) blue, not red"
    assert choices.score("x", example.target, example.meta["answer"], example.meta["choices"]).correct


@pytest.mark.parametrize(
    "text",
    [
        "answer is " * 10_000,
        " " * 100_000 + "B",
        "B " * 50_000,
        "not " * 25_000,
        "\\text{" * 17_000,
        "option " * 14_000,
    ],
    ids=lambda text: text[:12],
)
def test_reading_takes_no_longer_than_its_length_allows(text: str) -> None:
    start = time.process_time()
    choices.read(text, METALS)
    assert time.process_time() - start < 3


@pytest.mark.parametrize("text", ["A is not right", "The answer is: none", "If B is true", "red. Blue"])
def test_an_answer_that_is_a_choice_to_the_letter_is_that_choice(text):
    offered = {"A": "red", "B": "blue", "C": text}
    assert choices.read(f" {text}", offered) == "C"
    assert choices.score("x", f" {text}", "C", offered).correct


def test_one_text_under_two_labels_is_right_under_both():
    offered = {"A": "red", "B": "blue", "C": "red"}
    assert choices.score("x", "red", "C", offered).correct and not choices.score("x", "blue", "C", offered).correct


def test_a_choice_without_a_text_is_its_label():
    offered = {"true": "", "false": ""}
    right, wrong = (choices.score("x", f"the correct answer is {said}", "true", offered) for said in offered)
    assert (right.correct, wrong.correct) == (True, False)
    assert (right.parsed, wrong.parsed) == ("true", "false")
    assert choices.read("", offered) is None and choices.read(" True", offered) == "true"
