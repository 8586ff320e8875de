"""VQA accuracy beside that of lmms-eval: its own code on the same answers, real ones and altered ones.

Needs lmms-eval (``pip install --no-deps lmms-eval==0.7.3``, of which one file is loaded) and a mirror with the answers
of TextVQA's validation split.
"""

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.tables import mirror, read_table
from pipeline.scoring import vqa
from pipeline.tasks import textvqa

FIELD = importlib.util.find_spec("lmms_eval")
QUESTIONS = 1500
pytestmark = [
    pytest.mark.skipif(FIELD is None, reason="lmms-eval is not installed"),
    pytest.mark.skipif(mirror() is None, reason="SELFADAPT_MIRROR names no mirror of the benchmarks"),
]
MARKS = ';/[]"{}()=+\\_-><@`,?!.'


@pytest.fixture(scope="module")
def field() -> Any:
    """The class of lmms-eval that brings answers to one form."""
    assert FIELD is not None and FIELD.submodule_search_locations
    path = Path(next(iter(FIELD.submodule_search_locations))) / "tasks/_task_utils/vqa_eval_metric.py"
    spec = importlib.util.spec_from_file_location("vqa_eval_metric", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EvalAIAnswerProcessor()


@pytest.fixture(scope="module")
def questions() -> list[list[str]]:
    """What ten people answered, of each question."""
    rows = read_table("the answers", textvqa.TABLES["answers_test"])
    return [[one["answer"] for one in row["answers"]] for row in rows[:QUESTIONS]]


def altered(answer: str, draw: random.Random) -> str:
    """An answer, changed in one of the ways that the evaluation looks through, or does not."""
    place = draw.randint(0, len(answer))
    mark = draw.choice(MARKS)
    return draw.choice(
        [
            f"the {answer}",
            f"{answer.upper()}.",
            f"{answer}\n",
            answer[:place] + mark + answer[place:],
            answer[:place] + f" {mark}" + answer[place:],
            f"It's {answer}, isn't it?",
            f"{answer} {draw.choice('one two ten none 1,000 3.5 12,5'.split())}",
            f"{draw.choice(sorted(vqa.CONTRACTIONS))} {answer}",
            f"{draw.choice(sorted(vqa.CONTRACTIONS.values()))} {answer}",
            answer[: max(1, place)],
        ]
    )


def test_the_form_of_answers_is_that_of_the_field(field, questions):
    draw = random.Random(0)
    people = [answer for ten in questions for answer in ten]
    asked = [*people, *(altered(answer, draw) for answer in people), *field.CONTRACTIONS, *field.NUMBER_MAP]
    different = {answer: (vqa.normal(answer), field(answer)) for answer in asked if vqa.normal(answer) != field(answer)}
    assert not different
    assert len(asked) > 20_000 and sum(field(answer) != answer for answer in asked) > 5_000


def test_the_accuracy_of_answers_is_that_of_the_field(field, questions):
    draw = random.Random(1)
    values = set()
    for people in questions:
        for answer in (draw.choice(people), altered(draw.choice(people), draw), draw.choice(draw.choice(questions))):
            given, said = [field(one) for one in people], field(answer)
            ways = [sum(one == said for one in given[:n] + given[n + 1 :]) for n in range(len(given))]
            expected = sum(min(1.0, agreeing / 3) for agreeing in ways) / len(ways)
            assert vqa.accuracy(answer, people) == pytest.approx(expected, abs=1e-12)
            values.add(round(expected, 3))
    assert len(values) > 3
