"""What answers are like: cut, unread, unmarked, and which of the choices is picked."""

import pandas as pd
import pytest

from pipeline.core.types import Example
from pipeline.evaluation.answers import answers, habits, positions, with_positions

CHOICES = {"A": "red", "B": "blue", "C": "green"}


def example(number: int, answer: str) -> Example:
    return Example(f"q-{number}", ({"role": "user", "content": "?"},), "", {"answer": answer, "choices": CHOICES})


def scores(read: list[str | None], right: list[str], **columns: object) -> pd.DataFrame:
    """The scores of one cell. read: texts that were read. right: the right labels."""
    frame = pd.DataFrame({"id": [f"q-{number}" for number in range(len(read))], "answer": read})
    known = {"cell": "q-base", "row": "base", "task": "q", "seed": 0, "tokens": 4, "finished": True, "marked": True}
    correct = [text == CHOICES[label] for text, label in zip(read, right, strict=True)]
    frame = frame.assign(**known, correct=correct, parsed=frame["answer"].notna())
    asked = {"q": [example(number, label) for number, label in enumerate(right)]}
    return with_positions(frame.assign(**columns), asked)


def test_positions_are_those_of_the_order_of_mention() -> None:
    frame = scores(["blue", "red", None, "green"], ["A", "A", "B", "C"])
    assert frame["right"].tolist() == [1, 1, 2, 3]
    assert frame["picked"].isna().tolist() == [False, False, True, False]
    assert frame["picked"].dropna().tolist() == [2, 1, 3]


def test_a_choice_is_known_by_its_text_or_by_its_label_and_a_text_goes_first() -> None:
    assert positions({"A": "red", "B": ""}) == {"A": 1, "B": 2, "red": 1}
    assert positions({"A": "B", "B": "A"}) == {"B": 1, "A": 2}
    assert positions({"A": "red", "B": "red"})["red"] == 1


def test_prompts_without_choices_have_no_positions() -> None:
    frame = scores(["blue"], ["A"]).drop(columns=["right", "picked"])
    open_ended = {"q": [Example("q-0", (), "", {"answer": "12"})]}
    found = with_positions(frame, open_ended)
    assert found["right"].isna().all() and found["picked"].isna().all()
    (line,) = answers(found).to_dict("records")
    assert (line["picked"], line["right"], line["within"]) == ((), (), ())


def test_a_cell_is_told_by_what_it_picks_and_by_what_is_right() -> None:
    """A model that says the second choice whatever is asked."""
    frame = scores(["blue"] * 8 + [None] * 2, list("AAABBBCCCC"))
    (line,) = answers(frame).to_dict("records")
    assert line["n"] == 10 and line["unread"] == pytest.approx(0.2) and line["accuracy"] == pytest.approx(0.3)
    assert line["picked"] == pytest.approx((0, 0.8, 0)) and line["right"] == pytest.approx((0.3, 0.3, 0.4))
    assert line["within"] == pytest.approx((0, 1, 0))
    assert line["read_n"] == 8 and line["read_accuracy"] == pytest.approx(3 / 8)
    ((cell, place, picked, right),) = habits(answers(frame))
    assert (cell, place, picked, right) == ("q-base", 2, pytest.approx(0.8), pytest.approx(0.3))


def test_a_position_that_is_often_right_is_no_habit() -> None:
    frame = scores(["blue"] * 10, list("ABBBBBBBBC"))
    assert habits(answers(frame)) == []


def test_cut_and_unmarked_answers_are_counted_apart() -> None:
    frame = scores(
        ["red", "red", None, "red"],
        ["A", "A", "A", "B"],
        finished=[True, False, False, True],
        marked=[True, True, False, False],
    )
    (line,) = answers(frame).to_dict("records")
    assert line["cut"] == 0.5 and line["unread"] == 0.25
    assert line["unmarked"] == 0.25, "an answer that could not be read at all is not counted again"
    assert line["read_n"] == 2 and line["read_accuracy"] == 0.5


def test_a_cell_none_of_whose_answers_was_read_has_no_accuracy_of_read_ones() -> None:
    (line,) = answers(scores([None, None], ["A", "B"])).to_dict("records")
    assert line["read_n"] == 0 and pd.isna(line["read_accuracy"])
