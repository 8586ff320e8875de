"""Code against a reference: what counts as its value, and what crosses the sandbox."""

import pytest

from pipeline.core.errors import UserError
from pipeline.scoring.code import differential
from pipeline.scoring.code.sandbox import LIMITS, Program, run
from pipeline.scoring.code.values import Digest, line, native, plain

VALUES = [1, -2.5, True, None, "é", 10**5000, float("inf"), 3 + 4j, b"x", (1, [2, {3}]), {"a": (None,), 2: frozenset()}]


def test_of(base, expected, **changes):
    whole = {"function": "f", "prelude": "", "base": base, "plus": [], "expected": expected, "atol": 0, "oracle": ""}
    return {**whole, "seconds": 1, **changes}


def _itself():
    one = []
    one.append(one)
    return one


test_of.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_cross_and_come_back_the_same(value):
    assert native(plain(value)) == value
    assert type(native(plain(value))) is (set if isinstance(value, frozenset) else type(value))


def test_arguments_keep_their_types_in_the_sandbox():
    calls = [[value] for value in VALUES]
    assert list(run([Program("def f(x):\n    return x", "f", calls)])[0].values) == VALUES


@pytest.mark.parametrize("grow", [lambda: [0] * (1 << 21), lambda: {i: (i, i) for i in range(1 << 19)}, _itself])
def test_what_has_too_many_items_does_not_cross(grow):
    with pytest.raises(OverflowError, match="items"):
        line(grow())


def test_large_values_cross_as_digests_that_tell_equal_ones_apart():
    sources = ("[1] * x", "[1.0] * x", "[2] * x")
    programs = [Program(f"def f(x):\n    return {source}", "f", [[50000]]) for source in sources]
    one, same, other = (outcome.values[0] for outcome in run(programs))
    assert isinstance(one, Digest) and one == same != other
    assert line([1] * 50000) == line([True] * 50000)


@pytest.mark.parametrize(
    ("got", "expected", "changes", "agrees"),
    [
        (1, 1.0, {}, True),
        (True, 1, {}, True),
        ([1], (1,), {}, False),
        (0.1 + 0.2, 0.3, {}, True),  # floats: 1e-6
        ([0.1 + 0.2], [0.3], {}, True),
        ((0.3,), [0.3000001], {}, False),  # close, but no list
        ([0.3, 0.3], [0.3], {}, False),
        (1.001, 1.0, {"atol": 0.01}, True),
        (1.1, 1.0, {"atol": 0.01}, False),
        (float("nan"), 1.0, {}, False),
        (10**400, 1.5, {"atol": 0.1}, False),
        ("a", 1.5, {}, False),
        ([2, 1, 1], (1, 2), {"oracle": "set"}, True),
        ([2, 1, 3], (1, 2), {"oracle": "set"}, False),
        (5, 2, {"oracle": "set"}, False),
        (0, 7, {"oracle": "zero"}, True),
        (1, 7, {"oracle": "zero"}, False),
        (None, 7, {"oracle": "anything"}, True),
    ],
)
def test_what_counts_as_the_value(got, expected, changes, agrees):
    assert differential.agrees(got, expected, [], test_of([], [], **changes)) is agrees


def test_any_root_of_a_polynomial_counts():
    test = test_of([], [], oracle="root", atol=1e-4)
    assert differential.agrees(2.0, 1.0, [[2, -3, 1]], test)  # x² − 3x + 2
    assert not differential.agrees(1.5, 1.0, [[2, -3, 1]], test)


def test_base_tests_decide_and_plus_tests_are_told_beside():
    test = test_of([plain([1]), plain([2])], [1, 4, 9], plus=[plain([-3])])
    answers = ["def f(x):\n    return x * x", "def f(x):\n    return x ** 2 if x > 0 else 0", "def f(x):\n    return x"]
    scores = differential.score([test] * 4, [*answers, "no code"], list("abcd"))
    assert [(score.correct, score.also["plus"], score.value) for score in scores] == [
        (True, 1.0, 1.0),
        (True, 0.0, 1.0),
        (False, 0.0, 0.5),
        (False, 0.0, 0.0),
    ]
    assert scores[3].parsed is None


def test_whether_a_match_was_found_crosses_though_the_match_does_not():
    test = test_of([plain(["ab"]), plain(["b"])], [True, False], oracle="whether")
    right = "import re\ndef f(x):\n    return re.match('a', x)"
    assert differential.score([test], [right], ["a"])[0].correct


def test_a_call_without_end_costs_its_share_and_fails():
    test = test_of([plain([1]), plain([2])], [1, 2])
    source = "def f(x):\n    while x > 1: pass\n    return x"
    assert differential.score([test], [source], ["a"])[0].value == 0.5


def test_references_give_the_values_expected_and_lose_plus_tests_they_cannot_pass():
    test = test_of([plain([1])], [], plus=[plain([0]), plain([2])])
    (found,) = differential.with_references([("def f(x):\n    return 2 / x", test)])
    assert (found["expected"], found["plus"], found["seconds"]) == ([2.0, 1.0], [plain([2])], 1)
    with pytest.raises(UserError, match="expected the reference 'f' to answer its 1 base tests .* answered 0"):
        differential.with_references([("def f(x):\n    return x[0]", test)])


def test_helpers_that_the_prompt_gives_run_before_the_answer():
    test = test_of([plain([1])], [3], prelude="def helper(x):\n    return x + 2")
    assert differential.score([test], ["def f(x):\n    return helper(x)"], ["a"])[0].correct


def test_every_limit_is_stated():
    assert differential.MANY.keys() == LIMITS.keys()
