"""Any answer is read and scored: without an error, soon, and so that what was read can be written to a file.

How many answers are drawn for each scorer is set by SELFADAPT_FUZZ.
"""

import json
import os
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.types import Score
from pipeline.scoring import choices, code, glue, latex, numbers, preference
from pipeline.scoring.code import differential, values

EXAMPLES = int(os.environ.get("SELFADAPT_FUZZ", "150"))
SECONDS = 2.0
FEWER = settings(max_examples=max(20, EXAMPLES // 10), deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

# What the readers look for, and what surrounds it.
PIECES = """
answer|Answer:|The answer is|**Answer**:|####|\\boxed{|\\fbox{|}|{|<answer>|</answer>|$|$$|\\(|\\)|\\[|\\]|=|-|+|.|,|;|:
(|)|[|]|*|**|/|^|\\frac{|\\frac12|\\sqrt{|\\sqrt(|\\text{|\\mbox{ cm}|\\left(|\\right)|\\pm|\\infty|\\cup|\\times|\\cdot
\\pi|%|\\%|10^3|10^{-3}|1e5|1e999|3{,}250|12\\,400|1,234|007|0.5|½|²|１８|-₹5|2 1/2|3:00|x|y|x^2|\\{|\\}|\\begin{x}
\\end{x}|A|B|C|D|(A)|b)|copper|gold|Option B is correct|is wrong|not|nor|because|and|or|yes|no|True|1|2
```|```python|~~~|def f(x):|    return x|return|class Solution:|import re|from __future__ import annotations|@dataclass
f = lambda x: x|\"\"\"|\'\'\'|#|\\|while True: pass|f(|lambda|if x:|else:|try:|async def f(x):|yield|print(x)
assert f(1)|Question: why?|Q:|User:|I hope it is right.|\u00a0|\u2028|\ufeff|\0|\ud800|\r\n|\t|α|🙂
"""
PIECES_OF_ANSWERS = PIECES.strip("\n").replace("\n", "|").split("|")
pieces = st.lists(
    st.one_of(st.sampled_from(PIECES_OF_ANSWERS), st.text(max_size=4), st.just(" "), st.just("\n")), max_size=30
)
answers = st.one_of(pieces.map("".join), pieces.map(" ".join), pieces.map("\n".join), st.text(max_size=200))
METALS = {"A": "copper", "B": "silver", "C": "iron", "D": "gold"}

SCORERS: dict[str, Callable[[str], Score]] = {
    "numbers": lambda answer: numbers.score("x", answer, "3/4"),
    "choices": lambda answer: choices.score("x", answer, "B", METALS),
    "choices by name": lambda answer: choices.score("x", answer, "Ben", {"Ben": "Ben", "Ann": "Ann"}),
    "labels": lambda answer: glue.score_label("x", answer, "yes", ["no", "yes"]),
    "similarities": lambda answer: glue.score_similarity("x", answer, 2.5),
}


def judged(score: Score) -> None:
    """What every score is: a share, a verdict, and a text that can be written."""
    assert 0 <= score.value <= 1 and type(score.correct) is bool
    assert score.parsed is None or score.parsed.encode() is not None


@pytest.mark.parametrize("name", SCORERS)
@MANY
@given(answer=answers)
def test_any_answer_is_scored(name: str, answer: str) -> None:
    start = time.process_time()
    judged(SCORERS[name](answer))
    assert time.process_time() - start < SECONDS


@MANY
@given(answer=answers)
def test_any_answer_is_read_for_code_and_latex(answer: str) -> None:
    start = time.process_time()
    source, expression = code.read(answer, "f"), latex.read(answer)
    assert all(part is None or part.encode() is not None for part in (source, expression))
    assert time.process_time() - start < SECONDS
    latex.boxed(answer)


@FEWER
@given(
    answer=answers, expected=st.sampled_from(["\\frac{3}{4}", "x^2+1", "(1,2)", "3, 5", "15\\text{ cm}^2", "June 20"])
)
def test_any_answer_is_compared_with_an_expression(answer: str, expected: str) -> None:
    judged(latex.score("x", answer, expected))
    judged(latex.score("x", f"\\boxed{{{answer}}}", expected))


@FEWER
@given(several=st.lists(answers, min_size=1, max_size=6))
def test_any_answers_are_run_as_code(several: list[str]) -> None:
    tests = [(str(number), "f", [[[1], 11], [[2], 12]]) for number in range(len(several))]
    for score in code.score(tests, several):
        judged(score)
        assert not score.correct


@FEWER
@given(source=answers)
def test_any_program_that_is_written_into_a_function_is_run(source: str) -> None:
    test: dict[str, Any] = {"function": "f", "prelude": "", "base": [["list", 1]], "plus": [], "expected": [11]}
    test |= {"atol": 0, "oracle": "", "seconds": 1}
    body = "\n".join(f"    {line}" for line in source.splitlines())
    (score,) = differential.score([test], [f"```python\ndef f(x):\n{body}\n    return 0\n```"], ["a"])
    judged(score)


# ---- values --------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([10**400, -(2**63)])
)
KINDS = st.sampled_from(["list", "tuple", "set", "dict", "int", "float", "complex", "bytes", "digest", "other", ""])
forms = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(KINDS, inner).map(list),
        st.tuples(KINDS, inner, inner).map(list),
        st.dictionaries(st.text(max_size=3), inner, max_size=2),
    ),
    max_leaves=12,
)


@MANY
@given(form=forms)
def test_any_json_is_a_value_or_a_value_error(form: Any) -> None:
    try:
        value = values.native(json.loads(json.dumps(form)))
    except ValueError:
        return
    json.dumps(values.plain(value))
    code.same(value, [1, 2.5])
    code.same(value, 1.5)


@MANY
@given(
    got=forms, expected=scalars, atol=st.sampled_from([0, 1e-4]), oracle=st.sampled_from(["", *differential.ORACLES])
)
def test_any_value_is_compared(got: Any, expected: Any, atol: float, oracle: str) -> None:
    agrees = differential.agrees(got, expected, [[1.0, 2.0], 3], {"atol": atol, "oracle": oracle})
    assert type(agrees) is bool


@MANY
@given(preferences=st.lists(st.one_of(st.none(), st.just(float("nan")), st.floats(1, 2)), min_size=1, max_size=20))
def test_any_preferences_have_a_win_rate(preferences: list[float | None]) -> None:
    if any(map(preference.says, preferences)):
        assert 0 <= preference.win_rate(preferences) <= 1
        rate = preference.length_controlled_win_rate(preferences, [10] * len(preferences), [10] * len(preferences))
        assert 0 <= rate <= 1
    assert 0 <= preference.agreement(preferences, preferences).n <= len(preferences)


@MANY
@given(number=st.fractions(max_denominator=1000))
def test_numbers_are_read_back_however_they_are_written(number: Fraction) -> None:
    written = [str(number), f"The answer is {number}.", f"\\boxed{{{number}}}", f"#### {number}"]
    above, below = number.numerator, number.denominator
    sign = "-" if number < 0 else ""
    written += [f"{sign}\\frac{{{abs(above)}}}{{{below}}}", f"$\\boxed{{{sign}\\dfrac{{{abs(above)}}}{{{below}}}}}$"]
    if below == 1:
        thin = f"{above:,}".replace(",", "\\,")
        braced = f"{above:,}".replace(",", "{,}")
        written += [
            f"{above:,}",
            f"**{above:,}**",
            f"\\boxed{{{thin}}}",
            f"\\boxed{{{braced}}}",
            f"{above}.00",
            f"{above}e0",
        ]
    if abs(above) > below > 1:
        written.append(f"{sign}{abs(above) // below} {abs(above) % below}/{below}")
    for text in written:
        assert numbers.read(text) == number, text
        if "boxed" in text or "frac" in text:
            assert latex.same(latex.read(text) or "", f"{sign}\\frac{{{abs(above)}}}{{{below}}}"), text
