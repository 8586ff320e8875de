"""Pictures in the report: beside their answers, and by the kind of what is asked about them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from pipeline.core.types import Example
from pipeline.pictures.files import png, url
from pipeline.reporting import compose, site
from pipeline.reporting.site import Answers, Asked
from pipeline.reporting.tables.kinds import kinds_table

PICTURE = url(png(np.zeros((4, 6, 3), dtype=np.uint8)))


def example(id: str, kind: str) -> Example:
    turn = {"role": "user", "content": "What does the sign say?", "images": [PICTURE]}
    return Example(id, (turn,), "lemon", {"kind": kind, "answer": "lemon"})


def test_accuracy_is_told_by_the_kind_of_question():
    examples = {"signs": [example("a", "word"), example("b", "word"), example("c", "number")], "sums": []}
    examples["sums"] = [Example("d", ({"role": "user", "content": "1 + 1"},), "2", {"answer": "2"})]
    lines = [("signs", "base", "a", True), ("signs", "base", "b", False), ("signs", "base", "c", True)]
    lines += [("signs", "svf", "a", True), ("signs", "svf", "b", True), ("signs", "svf", "c", False)]
    lines += [("sums", "base", "d", True)]
    run = SimpleNamespace(examples=examples, scores=pd.DataFrame(lines, columns=["task", "row", "id", "correct"]))
    listing = kinds_table(run)
    assert listing.columns == ("task", "kind", "n", "Base model", "SVF expert")
    assert listing.rows == (("signs", "word", 2, 50.0, 100.0), ("signs", "number", 1, 100.0, 0.0))
    run.examples = {"sums": examples["sums"]}
    assert kinds_table(run) is None


def test_a_picture_stands_beside_its_answers():
    prompts = [("a", "What does the sign say?", "lemon", compose.shown(example("a", "word"))), ("b", "1 + 1", "2")]
    asked = Asked("signs", "others", prompts, [Answers("signs-base", "base", 0, [("lemon", "lemon", True)] * 2)])
    read = site.read_answers(site.answers_script(asked))
    assert read["prompts"] == [["a", "What does the sign say?", "lemon", [PICTURE]], ["b", "1 + 1", "2"]]
