"""VQA accuracy: the form of answers, and how many people have to agree."""

import pytest

from pipeline.scoring import vqa

FORMS = {
    "The Sign": "sign",
    "two cats": "2 cats",
    "none": "0",
    "dont know": "don't know",
    "it's 5": "it 's 5",
    "1,000": "1000",
    "3.5": "3.5",
    "yes.": "yes",
    "black/white": "black white",
    "black / white": "black white",
    "a\nb": "b",
    "somebody'd": "somebodyd",
    "youre": "you're",
}


@pytest.mark.parametrize(("answer", "form"), FORMS.items(), ids=FORMS)
def test_answers_are_brought_to_one_form(answer, form):
    assert vqa.normal(answer) == form


@pytest.mark.parametrize(("agreeing", "value"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_an_answer_is_worth_what_people_say(agreeing, value):
    people = ["the dakota"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    score = vqa.score("x", "Dakota.", people)
    assert score.value == pytest.approx(value) and score.correct == (value >= 0.5) and score.parsed == "dakota"


def test_no_answer_is_marked_as_none():
    score = vqa.score("x", " . ", ["yes"] * 10)
    assert score.value == 0 and score.parsed is None and not score.marked
