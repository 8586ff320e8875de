"""Signs: drawn by a seed, and divided between the tasks and whoever trains a tower."""

import random
from itertools import islice

import numpy as np

from pipeline.pictures import signs
from pipeline.pictures.questions import BEYOND, KINDS, OF_THE_TASKS, of_others
from pipeline.tasks import sign_questions
from pipeline.tasks import signs as reading

OTHERS = ["people", "system", "north", "lemon", "France", "between"]


def test_a_sign_is_drawn_by_its_seed():
    one, other = (signs.draw_sign("Lemon 27", random.Random(3)) for _ in range(2))
    assert one.shape == (signs.HEIGHT, signs.WIDTH, 3) and one.dtype == np.uint8
    assert np.array_equal(one, other)
    assert not np.array_equal(one, signs.draw_sign("Lemon 27", random.Random(4)))


def test_a_long_string_stands_on_the_sign_as_a_whole():
    drawn = signs.draw_sign("umbrella umbrella", random.Random(0)).astype(int)
    edges = drawn[:, [0, -1]] - drawn[:, :1]
    assert np.abs(edges).max() < 150  # no letter is cut


def test_no_tower_is_shown_what_stands_on_the_signs_of_a_task():
    draw = random.Random(0)
    shown = {signs.unread(draw, OTHERS).lower() for _ in range(3000)}
    asked = [
        *islice(reading.examples(5, reading.Options(kinds=tuple(KINDS))), 600),
        *islice(sign_questions.examples(5, sign_questions.Options(kinds=tuple(sign_questions.KINDS))), 300),
    ]
    assert not shown & {example.meta["sign"].lower() for example in asked}
    words = {part for text in shown for part in text.split() if part.isalpha()}
    assert not words & signs.KNOWN and "people" in words


def test_questions_for_training_are_about_other_strings_than_those_of_the_tasks():
    draw, source = random.Random(1), of_others(OTHERS)
    assert "lemon" not in source.words and "people" in source.words
    for make in KINDS.values():
        for _ in range(200):
            sign, question, answer = make(draw, source)
            assert question.endswith("?") and answer.lower() in sign.lower()
            has_word = any(part.isalpha() and len(part) > 2 for part in sign.split())
            assert has_word or not signs.held_out(sign)


def test_what_follows_from_a_sign_in_training_is_no_question_of_the_task_and_has_no_word_of_it():
    draw, source = random.Random(3), of_others(OTHERS)
    asked = {sign_questions.KINDS[kind](draw)[1] for kind in sign_questions.KINDS for _ in range(20)}
    for make in BEYOND.values():
        for _ in range(200):
            sign, question, answer = make(draw, source)
            assert question not in asked and answer
            assert not {part.lower() for part in sign.split()} & signs.KNOWN
            assert sign.isalpha() or not signs.held_out(sign)


def test_every_kind_of_the_tasks_is_answered_by_its_sign():
    draw = random.Random(2)
    for make in KINDS.values():
        sign, _, answer = make(draw, OF_THE_TASKS)
        assert answer in sign.lower()
