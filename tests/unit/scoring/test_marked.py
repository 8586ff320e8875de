"""Whether an answer stands where it was asked for: by kinds of answers, for each reader."""

import pytest

from pipeline.core.types import Score
from pipeline.scoring import choices, code, glue, latex, numbers

# Answers to "23 + 45 =", where no mark is asked for: all of them are right.
CONCLUDES = [
    "68",
    " 68.\n",
    "**68**",
    "$68$",
    "23 + 45 = 68",
    "23 + 45 = 68.",
    "23 + 45 = $68.",
    "23 + 45 = 68.00",
    "The sum is 68.",
    "The sum of 23 and 45 is 68 apples.",
    "That makes $68 in all.",
    "It adds up to 68",
    "You have 68 dollars in all!",
    "23 + 45 = 68. I hope this helps.",
    "The total is **68**. Let me know if you need more.",
    "68\n\nThis is because both numbers were added.",
    "68 apples\nI added them.",
    "Sum: 68\nThat is all.",
    "Let us add them.\n23 + 45 = 68\n\nSo that is the sum.",
]
FOUND_SOMEWHERE = [
    "I count 68 and then I go on with something else entirely.",
    "One could think of 68. But who knows?",
    "So many as 68 people came to the party on that day",
    "First there were 68 of them, and later on more came. Nobody counted them.",
]
BEHIND_A_MARK = [
    "#### 68",
    "The answer is 68, I think, for they were added up and so on.",
    "\\boxed{68} is what comes out of it. That is all.",
    "<answer>68</answer> Bye now.",
    "Answer: 68. They were added. It is done.",
]


@pytest.mark.parametrize("answer", CONCLUDES)
def test_a_number_that_concludes_is_where_a_short_answer_has_it(answer: str) -> None:
    score = numbers.score("x", answer, "68")
    assert (score.correct, score.marked) == (True, True)
    assert not numbers.score("x", answer, "68", asks_for_mark=True).marked


@pytest.mark.parametrize("answer", FOUND_SOMEWHERE)
def test_a_number_that_was_found_somewhere_is_not(answer: str) -> None:
    score = numbers.score("x", answer, "68")
    assert (score.correct, score.marked) == (True, False)


@pytest.mark.parametrize("answer", BEHIND_A_MARK)
def test_a_number_behind_a_mark_is_where_any_task_asks_for_it(answer: str) -> None:
    for asks_for_mark in (True, False):
        score = numbers.score("x", answer, "68", asks_for_mark=asks_for_mark)
        assert (score.correct, score.marked) == (True, True)


def test_a_mark_without_a_number_marks_no_number_before_it() -> None:
    for answer in (
        "48 / 2 = 24 and 24 + 44 = 68. So the answer is clear to all of us here.",
        "They are 68 in all.\n####",
    ):
        score = numbers.score("x", answer, "68", asks_for_mark=True)
        assert (score.correct, score.marked) == (True, False)


METALS = {"A": "copper", "B": "silver", "C": "iron", "D": "gold"}


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("B", True),
        ("(b) silver", True),
        ("Silver it is.", True),
        ("The answer is B.", True),
        ("Iron rusts, as we know. Option B is correct. So much for this.", True),
        ("Metals shine. Let us see. It is silver.", True),
        ("Silver is one. Others shine less.", True),
        ("Metals shine. One of them is silver. Others shine less.", False),
    ],
)
def test_a_choice_is_marked_if_it_is_named_as_asked(answer: str, marked: bool) -> None:
    score = choices.score("x", answer, "B", METALS)
    assert (score.correct, score.marked) == (True, marked)


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("\\boxed{x^2}", True),
        ("The answer is $x^2$. That was it.", True),
        ("$x^2$", True),
        ("\\[ x^2 \\].", True),
        ("We get $x^2$", False),
        ("$y$ and $x^2$", False),
    ],
)
def test_an_expression_is_marked_in_a_box_behind_a_mark_or_alone(answer: str, marked: bool) -> None:
    score = latex.score("x", answer, "x^2")
    assert (score.correct, score.marked) == (True, marked)


def test_code_is_marked_wherever_it_defines_the_function() -> None:
    tests = [("x", "f", [[[1], 1]])] * 3
    answers = ["```python\ndef f(x):\n    return x\n```", "Here:\ndef f(x):\n    return x", "f returns x"]
    assert [(score.correct, score.marked) for score in code.score(tests, answers)] == [
        (True, True),
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize(
    ("score", "marked"),
    [
        (glue.score_label("x", "Yes.", "yes", ["no", "yes"]), True),
        (glue.score_label("x", "I say: yes, it does.", "yes", ["no", "yes"]), True),
        (glue.score_label("x", "That is hard to tell. Yes.", "yes", ["no", "yes"]), False),
        (glue.score_similarity("x", "2.5", 2.5), True),
        (glue.score_similarity("x", "About 2.5 of 5.", 2.5), True),
        (glue.score_similarity("x", "They are alike.\n2.5", 2.5), False),
    ],
)
def test_a_label_and_a_similarity_are_marked_in_the_first_sentence(score: Score, marked: bool) -> None:
    assert (score.correct, score.marked) == (True, marked)
