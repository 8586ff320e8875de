"""The table of what answers are like: its numbers, and the sentences above it."""

import pandas as pd

from pipeline.reporting.tables.answers import answers_metrics, answers_table


def line(cell: str, **changes: object) -> dict[str, object]:
    """A line of ``pipeline.evaluation.answers.answers``, of a cell without choices."""
    known: dict[str, object] = {
        "cell": cell,
        "row": "base",
        "task": "q",
        "seed": 0,
        "n": 40,
        "cut": 0.0,
        "unread": 0.05,
    }
    known |= {"unmarked": 0.1, "accuracy": 0.5, "read_accuracy": 0.526, "read_n": 38, "tokens": 7.25}
    return {**known, "picked": (), "right": (), "within": (), **changes}


def test_choices_stand_by_position_beside_what_is_right() -> None:
    table = answers_table(
        pd.DataFrame([line("q-base", picked=(0.97, 0.02, 0.0), right=(0.33, 0.33, 0.34), within=(1.0, 0.02, None))])
    )
    (row,) = table.rows
    assert row == ("q-base", 40, 0.0, 5.0, 10.0, 50.0, 52.6, 38, 7.2, "97 / 2 / 0", "33 / 33 / 34", "100 / 2 / none")
    assert table.note.startswith(
        "These cells pick one position for more than 60 % of the prompts although it is right for less than 40 %: "
        "q-base (position 1 for 97 %, right for 33 %)."
    )


def test_without_choices_nothing_is_said_of_positions() -> None:
    table = answers_table(pd.DataFrame([line("sums-base", read_accuracy=None, read_n=0)]))
    assert table.rows[0][-3:] == (None, None, None) and table.rows[0][6] is None
    assert table.note.startswith("Cut: ended by the token limit.")


def test_cells_whose_answers_are_cut_or_unread_are_named() -> None:
    lines = pd.DataFrame([line("a", cut=0.97), line("b", unread=0.11), line("c", cut=0.1)])
    assert (
        "More than 10 % of the answers are cut or unread in a (97 % cut, 5 % unread), b (0 % cut, 11 % unread)."
        in answers_table(lines).note
    )


def test_cells_have_their_numbers_for_other_programs() -> None:
    numbers = answers_metrics(pd.DataFrame([line("a"), line("b", read_accuracy=None, read_n=0)]))
    assert numbers["a"]["read_n"] == 38 and numbers["a"]["unmarked"] == 0.1
    assert "read_accuracy" not in numbers["b"]
