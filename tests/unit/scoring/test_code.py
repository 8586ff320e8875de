"""Code judged by unit tests: what counts as the value expected, and as a right answer."""

import pytest

from pipeline.scoring import code


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
    ("got", "expected"),
    [(10**400, 1.5), ([[1] * 3] * 3, [[1]]), ({1: [2]}, {1: [3]}), ({1}, [1]), (b"a", "a"), (float("inf"), 1.0)],
)
def test_values_compared_may_be_as_hostile_as_programs(got: object, expected: object) -> None:
    assert not code.same(got, expected)


def test_deep_values_are_no_error() -> None:
    deep: list[object] = []
    other: list[object] = []
    for _ in range(100_000):
        deep, other = [deep], [other]
    assert not code.same(deep, other)
