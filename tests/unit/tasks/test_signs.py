"""The tasks about pictures: what they ask, how they are scored, how they are written and read."""

import json
from itertools import islice

import pytest

from pipeline.core.artifacts import read_examples
from pipeline.core.errors import UserError
from pipeline.core.types import SPLITS
from pipeline.data.splits import fill, normalised
from pipeline.data.written import write_splits
from pipeline.pictures.files import opened, stored
from pipeline.pictures.questions import KINDS
from pipeline.pictures.signs import CAPITALS, DAYS, MONTHS
from pipeline.tasks import okvqa, sign_questions, signs, textvqa

SIZES = {"test": 12, "few_shot": 2, "validation": 2, "train": 4}


@pytest.fixture(scope="module")
def splits():
    return fill(signs.examples(1, signs.Options(kinds=tuple(KINDS))), SIZES)


def test_no_string_stands_on_two_signs(splits):
    texts = [example.meta["sign"].lower() for rows in splits.values() for example in rows]
    assert len(set(texts)) == len(texts) == sum(SIZES.values())


def test_pictures_are_files_beside_the_examples(splits, tmp_path):
    write_splits(splits, task="signs", domain="others", folder=tmp_path / "signs")
    for split in SPLITS:
        read = read_examples(tmp_path / f"signs/{split}.jsonl")
        assert [example.target for example in read] == [example.target for example in splits[split]]
        for example, made in zip(read, splits[split], strict=True):
            assert stored(example.images[0]) == stored(made.images[0])
            assert opened(stored(example.images[0])).size == (128, 32)
    line = json.loads((tmp_path / "signs/test.jsonl").read_text().splitlines()[0])
    assert line["messages"][1]["images"][0].startswith("images/") and set(line) == {"id", "messages", "target", "meta"}


def test_the_same_question_about_another_picture_is_another_prompt(splits):
    texts = [normalised(example) for rows in splits.values() for example in rows]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("answer", "right"), [("Lemon", True), (" lemon. ", True), ("lemons", False), ("a lemon", False), ("", False)]
)
def test_an_answer_is_right_up_to_case_and_a_full_stop(splits, answer, right):
    example = splits["test"][0]
    asked = type(example)(example.id, example.messages, "lemon", {"answer": "lemon"})
    (score,) = signs.score([asked], [answer])
    assert score.correct == right and score.marked == bool(answer.strip())


def test_what_is_asked_about_a_sign_follows_from_it():
    made = islice(sign_questions.examples(1, sign_questions.Options(kinds=tuple(sign_questions.KINDS))), 80)
    for example in made:
        sign, answer, kind = (example.meta[key] for key in ("sign", "answer", "kind"))
        if kind == "sum":
            assert int(answer) == sum(map(int, sign.split(" + ")))
        elif kind == "larger":
            assert int(answer) == max(map(int, sign.split()))
        elif kind == "capital":
            assert CAPITALS[sign.title()].lower() == answer
        else:
            names = MONTHS if sign.title() in MONTHS else DAYS
            assert names[names.index(sign.title()) + 1].lower() == answer


def test_a_kind_that_is_not_there_is_one_sentence():
    with pytest.raises(UserError, match="out of word, .* got \\['colour'\\]; correct them"):
        next(signs.examples(1, signs.Options(kinds=("word", "colour"))))


@pytest.mark.parametrize(("module", "ends"), [(textvqa, "/7.jpg"), (okvqa, "/val2014/COCO_val2014_000000000007.jpg")])
def test_questions_about_photographs_are_joined_with_what_people_answered(module, ends):
    asked = [{"question": "what brand is it?", "question_id": 3, "image_id": 7}]
    given = [{"question_id": 3, "answers": [{"answer": word} for word in ["Dakota"] * 6 + ["dakota digital"] * 4]}]
    tables = {"train": [], "answers_train": [], "test": asked, "answers_test": given}
    (example,) = module.native_splits(tables, module.Options(pictures="photographs"))["test"]
    assert example.images[0].endswith(ends) and example.target == "dakota"
    assert example.messages[-1]["content"] == "What brand is it?\nAnswer the question using a single word or phrase."
    scores = [module.score([example], [answer])[0].value for answer in ("the Dakota.", "dakota digital", "ford")]
    assert scores == [1.0, 1.0, 0.0]
    with pytest.raises(UserError, match="expected answers to each question"):
        module.native_splits({**tables, "answers_test": []}, module.Options(pictures="photographs"))
