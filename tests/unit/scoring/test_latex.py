"""Reading LaTeX off answers, and what means the same."""

import pytest

from pipeline.scoring import latex


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("So \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1}, no, \\boxed{2}", "2"),
        ("\\fbox{7}", "7"),
        ("\\boxed 3$", "3"),
        ("The answer is $x^2$.", "x^2"),
        ("The answer is 3.5. It is less than 4.", "3.5"),
        ("Answer: (1, 2)\nbecause", "(1, 2)"),
        ("We get $a$ and then $b+1$.", "b+1"),
        ("That makes 12 of 1,234", "1,234"),
        ("\\boxed{", None),
        ("none", None),
    ],
)
def test_which_expression_counts(answer, read):
    assert latex.read(answer) == read


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\\frac12", "\\dfrac{1}{2}"),
        ("\\frac{1}{2}", "0.5"),
        ("x=5", "5"),
        ("5\\text{ cm}", "5"),
        ("\\text{even}", "even"),
        ("1,234", "1234"),
        ("\\sqrt2", "\\sqrt{2}"),
        ("x^2+1", "1+x^2"),
        ("\\left( 1, 2 \\right)", "(1,2)"),
        ("90^\\circ", "90"),
        (".5", "0.5"),
        ("\\$3.50", "3.5"),
    ],
)
def test_means_the_same(one, other):
    assert latex.same(one, other) and latex.same(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("3", "4"), ("(1,2)", "(2,1)"), ("(-\\infty,2]", "(-\\infty,2)"), ("x", "y"), ("", "0")]
)
def test_means_another_thing(one, other):
    assert not latex.same(one, other)


def test_an_endless_expression_ends():
    assert not latex.same("9" + "^{9" * 30 + "}" * 30, "3")


def test_a_score_tells_what_was_read():
    assert latex.score("a", "\\boxed{2}", "2").correct
    assert latex.score("a", "nothing", "2").parsed is None
