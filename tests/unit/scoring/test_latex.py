"""Reading LaTeX off answers, and what means the same: by kinds, each with its neighbours."""

import resource
import threading
from collections.abc import Iterator

import pytest

from pipeline.scoring import latex
from pipeline.scoring.latex import verifier


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
        # boxes within formulas, before other text, cut off
        ("Hence \\[ \\boxed{58} \\]", "58"),
        ("It follows that\\boxed{615}.,and now the reasons.\n\n**Result**\n\\boxed{615}", "615"),
        ("\\boxed{\\text{even}}", "\\text{even}"),
        ("We get \\boxed{\\frac{\\sqrt{3}}{2", "2"),
        # emphasis, line ends, tags
        ("Both give 10 + 51 = 61.\n\nFinal Answer: **61**", "61"),
        ("**Answer:** $\\frac{1}{2}$", "\\frac{1}{2}"),
        ("Answer:\r\n\\boxed{12}\r\n", "12"),
        ("Answer:\r\n12\r\nThat is it.", "12"),
        ("<answer>$2x$</answer>", "2x"),
        ("<answer>2x</answer> and 3", "2x"),
        # sentences
        ("The final answer is $x = 5$. I hope it is correct.", "x = 5"),
        ("The area is $15\\text{ cm}^2$.", "15\\text{ cm}^2"),
        ("It costs \\$5 in all, so $5x$.", "5x"),
        ("First \\(a\\), then \\[b\\] and $$c$$", "c"),
        ("An opening \\( that never closes, $d$", "d"),
        # a further question of the model's own
        ("So \\boxed{4}.\n\nProblem: What is 3 + 3?\nSo \\boxed{6}.", "4"),
    ],
)
def test_which_expression_counts(answer: str, read: str | None) -> None:
    assert latex.read(answer) == read


SAME = {
    "writing": [
        ("\\frac12", "\\dfrac{1}{2}"),
        ("\\frac1{72}", "\\frac{1}{72}"),
        ("\\sqrt2", "\\sqrt{2}"),
        ("\\left( 1, 2 \\right)", "(1,2)"),
        ("90^\\circ", "90"),
        (".5", "0.5"),
        ("007", "7"),
        ("\\$3.50", "3.5"),
        ("\\$5.00", "5"),
        ("61**", "61"),
        ("**61**", "61"),
        ("x=5", "5"),
        ("f(x)=x+1", "x+1"),
        ("x \\in [1,2]", "[1,2]"),
        ("\\{1, 2\\}", "\\{2,1\\}"),
        ("5\\,", "5"),
        ("50\\%", "50"),
    ],
    "thousands": [
        ("1,234", "1234"),
        ("9{,}500", "9500"),
        ("12\\,400", "12400"),
        ("10,\\!000", "10000"),
        ("(10,000)", "(10000)"),
        ("2,100", "2, 100"),
    ],
    "values": [
        ("\\frac{1}{2}", "0.5"),
        ("3.5", "\\frac{7}{2}"),
        ("x^2+1", "1+x^2"),
        ("\\frac{3}{4}\\pi", "\\frac{3\\pi}{4}"),
        ("\\sqrt{8}", "2\\sqrt{2}"),
        ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"),
        ("2^{10}", "1024"),
        ("(x+1)^2", "x^2+2x+1"),
        ("y=2x+1", "y = 1 + 2x"),
        ("2x - y + 1 = 0", "4x - 2y + 2 = 0"),
    ],
    "mixed numbers": [
        ("2\\frac{1}{2}", "\\frac{5}{2}"),
        ("2.5", "2\\frac{1}{2}"),
        ("1 1/4", "\\frac{5}{4}"),
        ("-1\\frac12", "-1.5"),
        ("11 2/3", "11 \\frac{2}{3}"),
    ],
    "points, intervals and lists": [
        ("(1,4.5)", "\\left(1,\\frac{9}{2}\\right)"),
        ("(-\\infty,5)", "\\left(-\\infty, 5\\right)"),
        ("(2,\\infty)", "(2, \\infty)"),
        ("t \\geq \\sqrt{5}", "[\\sqrt{5},\\infty)"),
        ("(-\\infty,-1)\\cup(0.5,2)", "(\\frac12,2) \\cup (-\\infty,-1)"),
        ("3, 5", "5 \\text{ and } 3"),
        ("3 and 5", "3, 5"),
        ("1, 2, or 3", "1,2,3"),
        ("\\pm 2", "2, -2"),
        ("1 \\pm \\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"),
        ("1, 2", "(1,2)"),
        ("[3,-3,1]", "(3,-3,1)"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ],
    "words": [
        ("\\text{even}", "even"),
        ("\\text{(C)}", "C"),
        ("(C)", "C"),
        ("\\text{29}", "29"),
        ("\\text{June } 20", "June 20"),
        ("\\text{Tuesday}", "tuesday"),
        ("4:20 \\text{ p.m.}", "4:20\\text{ p.m.}"),
        ("4:20 PM", "4:20 \\text{ p.m.}"),
        ("12 \\text{ feet } 6 \\text{ inches}", "12 feet 6 inches"),
    ],
    "units": [
        ("5\\text{ cm}", "5"),
        ("15", "15\\mbox{ cm}^2"),
        ("15\\text{ cm}^2", "15\\mbox{ cm}^2"),
        ("8\\text{ ways}", "8"),
        ("8 different ways", "8\\text{ ways}"),
        ("1920 ways.", "1920\\text{ ways}"),
        ("\\frac{1}{2}\\text{ hour}", "0.5"),
    ],
}
DIFFERENT = {
    "values": [
        ("3", "4"),
        ("x", "y"),
        ("x=5", "y=5"),
        ("", "0"),
        ("7\\sqrt(3)", "7"),
        ("\\frac{5}{0}", "\\frac{5}{9}"),
        ("2x+5y+1=0", "2x-y+9=0"),
        ("x+1=0", "x-1=0"),
    ],
    "what is nearly so": [
        ("0.1428571428571", "\\frac{1}{7}"),
        ("0.333", "\\frac13"),
        ("3.14", "\\pi"),
        ("1.414", "\\sqrt{2}"),
        ("\\frac{1}{30!}", "\\frac{1}{31!}"),
        ("\\frac{1}{2^{70}}", "\\frac{1}{2^{71}}"),
        ("2^{200}", "2^{200}+1"),
        ("10^{-30}", "0"),
    ],
    "points, intervals and lists": [
        ("(1,2)", "(2,1)"),
        ("(-\\infty,2]", "(-\\infty,2)"),
        ("[1,2]", "(1,2)"),
        ("I=(2,3.5)", "I=(2,3)"),
        ("k=4,5,6", "k=5,6,7"),
        ("11, 12, \\text{ and } 90", "10, 13, \\text{ and } 90"),
        ("17", "\\pm 17"),
        ("1,2", "1,2,2"),
        ("35", "3 \\text{ and } 5"),
        ("24", "2 \\text{ or } 4"),
        ("194682", "19, 46 and 82"),
        ("2100", "2, 100"),
    ],
    "words": [
        ("\\text{July } 20", "\\text{June } 20"),
        ("20", "\\text{June } 20"),
        ("\\text{Tuesday}", "\\text{Thursday}"),
        ("4:20 \\text{ a.m.}", "4:20 \\text{ p.m.}"),
        ("3:00", "11:00"),
        ("3", "3:00"),
        ("126", "12 \\text{ feet } 6 \\text{ inches}"),
        ("12 \\text{ feet } 7 \\text{ inches}", "12 \\text{ feet } 6 \\text{ inches}"),
        ("\\text{even}", "\\text{odd}"),
        ("A", "\\text{(C)}"),
    ],
    "units": [
        ("225", "15\\mbox{ cm}^2"),
        ("5", "5 \\text{ million}"),
        ("5 \\text{ dollars}", "5 \\text{ cents}"),
        ("4\\text{ a.m.}", "4\\text{ p.m.}"),
        ("16\\text{ cm}^2", "15\\mbox{ cm}^2"),
    ],
}


def pairs(kinds: dict[str, list[tuple[str, str]]]) -> list[object]:
    return [pytest.param(*pair, id=f"{kind}: {pair[0]}") for kind, several in kinds.items() for pair in several]


@pytest.mark.parametrize(("one", "other"), pairs(SAME))
def test_means_the_same(one: str, other: str) -> None:
    assert latex.same(one, other) and latex.same(other, one)


@pytest.mark.parametrize(("one", "other"), pairs(DIFFERENT))
def test_means_another_thing(one: str, other: str) -> None:
    assert not latex.same(one, other) and not latex.same(other, one)


def test_a_score_tells_what_was_read() -> None:
    assert latex.score("a", "\\boxed{2}", "2").correct
    assert latex.score("a", "nothing", "2").parsed is None


def test_what_cannot_be_written_to_a_file_is_not_read() -> None:
    (given,) = {latex.score("a", "The answer is $\ud800x$.", "2").parsed}
    assert given is not None and given.encode()


# ---- time ----------------------------------------------------------------------------------------------------------


def test_verdicts_are_the_same_in_another_thread() -> None:
    """Where algebra's time limit was a signal, it failed in every thread but the first, and all answers were wrong."""
    verdicts: list[bool] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(latex.score("a", "\\boxed{x^2+1}", "1+x^2").correct))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True] * 4


ENDLESS = ["9" + "^{9" * 30 + "}" * 30, "9^{9^{9^{9}}}+x", "(x+y)^{10^9}", "\\sum_{k=1}^{10^{12}} k^k", "99999999!!+x"]


LOADING = 10  # seconds of CPU time for sympy to be loaded, on a slow machine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A verifier of the test's own, in which a comparison has less time."""
    monkeypatch.setattr(verifier, "SECONDS", 2)
    verifier._verifiers.verifier.close()
    yield
    verifier._verifiers.verifier.close()


@pytest.mark.parametrize("expression", ENDLESS)
def test_an_endless_expression_ends(expression: str, quick: None) -> None:
    """After twice the CPU time of a comparison at the most, whatever else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not latex.same(expression, "x+3")
    verifier._verifiers.verifier.close()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime < 2 * verifier.SECONDS + LOADING
    assert latex.same("x+1", "1+x")


def test_an_endless_expression_costs_its_time_once(quick: None) -> None:
    latex.same("9^{9^{9^{9}}}+x", "x+3")
    assert verifier._verifiers.verifier._process is None
    assert not any(latex.same("9^{9^{9^{9}}}+x", f"x+{number}") for number in range(4, 20))
    assert verifier._verifiers.verifier._process is None, "nothing was asked again"


def test_a_process_that_ends_starts_anew() -> None:
    assert latex.same("x+1", "1+x")
    process = verifier._verifiers.verifier._process
    assert process is not None
    process.kill()
    process.wait()
    assert latex.same("x+2", "2+x")
    assert verifier._verifiers.verifier._process is not process
