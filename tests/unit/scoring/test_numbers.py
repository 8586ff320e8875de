"""Reading numbers off answers: by kinds, each with its neighbours."""

import time
from fractions import Fraction

import pytest

from pipeline.scoring import numbers

KINDS: dict[str, list[tuple[str, str | int | None]]] = {
    "signs": [
        ("42", 42),
        ("-7", -7),
        ("\u22127", -7),
        ("\u20137", -7),
        ("+7", 7),
        ("x = -3", -3),
        ("x = - 3", -3),
        ("\\boxed{ -7 }", -7),
        ("\\boxed{- 7}", -7),
        ("The answer is: -7.", -7),
        ("5 - 3 = 2", 2),
        ("5-3", 3),  # a subtraction, not a negative three
        ("10 - 4", 4),
        ("50% - 4", 4),
        ("(2)-3", 3),
        ("(2) - 3", 3),
        ("The year 2020-2024", 2024),
        ("All in all:\n- 5 apples\n- 3 pears", 3),  # items of a list
        ("Steps:\n* 2 * 4 = 8", 8),
    ],
    "money": [
        ("$12.50", "12.5"),
        ("-$12.50", "-12.5"),
        ("$-3", -3),
        ("- $3", 3),
        ("The answer is -₹500", -500),
        ("The answer is ¥1,000", 1000),
        ("Together they cost $41.00.", 41),
        ("\\boxed{\\$1{,}250}", 1250),
        ("€5", 5),
        ("It costs 12.50 dollars.", "12.5"),
    ],
    "thousands": [
        ("1,234,567", 1234567),
        ("1,2", 2),  # a list
        ("#### 1,250", 1250),
        ("The answer is \\boxed{3{,}250}.", 3250),
        ("\\boxed{12\\,400}", 12400),
        ("\\boxed{1\\,234\\,567}", 1234567),
        ("\\boxed{6,400}", 6400),
        ("10,\\!000", 10000),
        ("12\u202f400", 12400),
        ("12'400", 12400),
        ("1,00,000", 100000),
        ("They picked 56 plums, all in all.", 56),
        ("1,234.50", "1234.5"),
    ],
    "fractions": [
        ("3/4", "3/4"),
        ("12/4 = 3", 3),
        ("1/0", None),
        ("The answer is \\boxed{\\frac{3}{4}}", "3/4"),
        ("\\boxed{-\\frac{3}{4}}", "-3/4"),
        ("\\boxed{\\dfrac{10}{3}}", "10/3"),
        ("\\boxed{\\frac34}", "3/4"),
        ("\\boxed{\\frac{1{,}000}{3}}", "1000/3"),
        ("¾", "3/4"),
        ("3⁄4", "3/4"),
        (".5", "1/2"),
        ("The answer is 0.5", "1/2"),
        ("On 3/4/2020 there were 5", 5),
    ],
    "mixed numbers": [
        ("2 1/2", "5/2"),
        ("\\boxed{2\\frac{1}{2}}", "5/2"),
        ("\\boxed{2 \\frac{1}{2}}", "5/2"),
        ("-2 1/2", "-5/2"),
        ("2½", "5/2"),
        ("2 ½ cups", "5/2"),
        ("of 2 3/2", "3/2"),  # two numbers
        ("The answer is 1 3/4 hours.", "7/4"),
    ],
    "powers": [
        ("#### 1e5", 100000),
        ("The answer is 2.5e3 meters", 2500),
        ("1.5E-2", "0.015"),
        ("The answer is \\boxed{5 \\times 10^3}", 5000),
        ("5 × 10^{3}", 5000),
        ("5 \\cdot 10^{-2}", "0.05"),
        ("5*10**3", 5000),
        ("5 × 10³", 5000),
        ("10^3", 1000),
        ("2^{10}", 1024),
        ("15 cm^2", 15),
        ("15 m²", 15),
        ("3 * 4 = 12", 12),
        ("Flight 3E2B left 7", 7),
        ("1e99999", None),
        ("9^9999", None),
    ],
    "units and marks of text": [
        ("50%", 50),
        ("Answer: 50\\%", 50),
        ("12km", 12),
        ("\\boxed{18 \\text{ apples}}", 18),
        ("\\boxed{\\text{18}}", 18),
        ("$18$", 18),
        ("\\(18\\)", 18),
        ("**18**", 18),
        ("[18]", 18),
        ("答え: １８", 18),
        ("The sum is 122.", 122),
        ("37 + 85 = 122", 122),
    ],
    "after a mark": [
        ("The answer is 12, because 5 + 7 is 12 and 3 is not.", 12),
        ("Answer: 9\nThere are 3 more.", 9),
        ("The answer is 5. No, the answer is 6 of 7.", 6),
        ("so \\boxed{18} units, 4 left", 18),
        ("#### 1,000", 1000),
        ("#### 3.0", 3),
        ("5 + 13 = 18\r\n#### 18\r\n", 18),
        ("Final Answer: **61**", 61),
        ("**Answer:** 42. Those took 3 steps.", 42),
        ("**Answer**: 42. I used 3 steps.", 42),
        ("__Answer__ = 42 of 50", 42),
        ("The answer was 42 in 3 steps.", 42),
        ("## Answer\n42\n\nThat took 3 steps.", 42),
        ("<answer>42</answer> in 3 steps", 42),
        ("The answer is\n\n42 and not 3", 42),
        ("#### 18\nI hope the answer is right.", 18),
        ("Answer: Let us see. There are 5 + 3 = 8", 8),  # the sentence behind the mark has none
        ("5 is the answer: yes", 5),
        ("answer:", None),
    ],
    "an equation behind a mark": [
        ("Answer: 3 * 4 = 12", 12),
        ("Answer: 3 \\times 4 = 12 apples", 12),
        ("The answer is 2 + 3 + 4 = 9, not 8.", 9),
        ("\\boxed{3 \\times 4 = 12}", 12),
        ("\\boxed{x = 5}", 5),
        ("Answer: 2 * 3 + 1 = 6 + 1 = 7", 7),
        ("The answer is 12 = 3 * 4", 12),
        ("The answer is 12 (3 * 4 = 12, 5 = 5)", 12),
        ("\\boxed{12} = 3 \\times 4", 12),
        ("\\boxed{6}$ and x = 4", 6),
        ("Answer: x = 5 or x = -2", 5),
    ],
    "a further question": [
        ("2 + 3 = 5\n#### 5\n\nQuestion: Tom has 7 hats and buys 4.\nAnswer: 7 + 4 = 11\n#### 11", 5),
        ("The answer is 5.\n\n**Problem 2:** What is 3 + 3?\nThe answer is 6.", 5),
        ("2 + 3 = 5\nQ: What is 3 + 3?\nA: 6", 5),
        ("5 + 5 = 10\nUser: and 3 + 3?\nAssistant: 6", 10),
        ("Question: Tom has 7 hats.\nThe answer is 7.", 7),
        ("Question 5: 2 + 3 = 5.\nQuestion 6: no.\n\nThe sum is \\boxed{14}.", 14),
        ("Question 1: the answer is 3.\n\nQuestion 2: the answer is 4.", 4),
        ("The answer is 3.\n\nQuestion 2: what is 2 + 2?\nThe answer is 4.", 3),
        ("Let us see.\nProblem: Tom has 7 hats.\nAnswer: 7", 7),
    ],
    "nothing": [("none at all", None), ("", None), ("$ - , . / ^ {", None)],
}


@pytest.mark.parametrize(
    ("answer", "value"),
    [pytest.param(*case, id=f"{kind}: {case[0]}") for kind, cases in KINDS.items() for case in cases],
)
def test_the_number_of_an_answer(answer: str, value: str | int | None) -> None:
    assert numbers.read(answer) == (None if value is None else Fraction(value))


def test_numbers_are_compared_exactly() -> None:
    assert numbers.score("x", "0.3", "0.30").correct
    assert not numbers.score("x", "0.30000001", "0.3").correct
    assert numbers.score("x", "nothing", "0").parsed is None


@pytest.mark.parametrize(
    "answer",
    [
        "9" * 6000,
        "1" * 900 + "/" + "7" * 90,
        "1e400",
        "9" * 999 + "e399",
        "\\frac{" + "9" * 6000 + "}{3}",
        "1.123456^900",
        "0.001^333",
        "1 " + "9" * 6 + "/" + "9" * 6,
    ],
)
def test_long_numbers_are_read_and_written_without_an_error(answer: str) -> None:
    numbers.score("x", answer, "3")
    numbers.score("x", f"The answer is {answer}", "3")


@pytest.mark.parametrize(
    "text",
    [
        "answer" + " " * 100_000,
        "answer: " * 12_000,
        "answer is\n\n" * 10_000,
        "\\boxed{" * 14_000,
        "####" * 25_000,
        "1," * 50_000,
        "1,111" * 20_000,
        "-" * 100_000,
        "\\frac{" * 17_000,
        "\\text{" * 17_000,
        "\n" * 100_000,
        "\nQuestion" + " " * 100_000,
        "Answer: " + "= 1 " * 25_000,
        "½" * 50_000,
        "<answer>" * 12_000,
    ],
    ids=lambda text: text[:12],
)
def test_reading_takes_no_longer_than_its_length_allows(text: str) -> None:
    start = time.process_time()
    numbers.read(text)
    assert time.process_time() - start < 3
