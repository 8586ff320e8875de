"""The runs that are published: their answers, scored again, give the published numbers to the digit."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline.core.artifacts import read_examples, read_json, write_jsonl
from pipeline.core.config import read_params
from pipeline.reporting import publish
from pipeline.reporting.publish import numbers
from pipeline.reporting.published import COMPLETIONS, read_one
from pipeline.reporting.read import read_published
from stages import prepare, score
from tests.made import PUBLISHED, make_run
from tests.rescored import SCORED, scored_again, tables_missing

ROOT = Path(__file__).resolve().parents[3]
PAPERS = read_published(PUBLISHED)
RUNS = sorted(path.parent for path in (ROOT / "reports/published").glob("*/run.json"))
ANSWERED = [run for run in RUNS if (run / COMPLETIONS).is_file()]


def scores_of(folder: Path) -> pd.DataFrame:
    """The published scores, with the columns of ``SCORED``."""
    return read_one(folder, {}).run.scores[SCORED].reset_index(drop=True)


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
def test_the_published_numbers_are_what_the_published_scores_come_to(folder: Path) -> None:
    assert numbers(folder, PAPERS)[0] == read_json(folder / "metrics.json")


@pytest.mark.parametrize("folder", ANSWERED, ids=lambda folder: folder.name)
def test_published_answers_scored_again_are_the_published_scores(folder: Path, tmp_path: Path) -> None:
    if missing := tables_missing(folder):
        pytest.skip(f"set SELFADAPT_MIRROR to a mirror folder to make the examples of {', '.join(missing)} again")
    pd.testing.assert_frame_equal(scored_again(folder, tmp_path), scores_of(folder), check_dtype=False)


# ---- the same of a run made here ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published run on real examples of the task sums: every third answer is wrong, every seventh is no number."""
    tiny: dict[str, Any] = read_params(ROOT / "pipeline/profiles/tiny.yaml")
    params = {key: tiny[key] for key in ("profile", "seeds", "compute", "report")}
    params |= {"bases": {"base": tiny["bases"]["base"]}, "tasks": {"sums": tiny["tasks"]["sums"]}}
    params |= {"splits": {"train": 6, "validation": 6, "test": 30, "few_shot": 6}, "rows": {"base": {"method": "base"}}}
    params |= {"tables": {"table1": {"tasks": ["sums"], "rows": ["base"]}}}
    make_run(tmp_path, examples=30, params=params)
    data = prepare.TaskData.read(read_params(tmp_path / "params.yaml"), {"task": "sums"})
    prepare.run(task="sums", data=data, raw=tmp_path / "raw", examples=tmp_path / "data/tasks/sums")
    examples = read_examples(tmp_path / "data/tasks/sums/test.jsonl")
    texts = [
        "no idea" if place % 7 == 0 else f"{one.target}1" if place % 3 == 0 else one.target
        for place, one in enumerate(examples)
    ]
    rows = [
        {"id": one.id, "text": text, "tokens": 5, "prompt_tokens": 9, "finished": True}
        for one, text in zip(examples, texts, strict=True)
    ]
    write_jsonl(tmp_path / "artifacts/completions/sums-base.jsonl", rows)
    score.run(
        task="sums",
        examples=tmp_path / "data/tasks/sums/test.jsonl",
        completions=tmp_path / "artifacts/completions/sums-base.jsonl",
        scores=tmp_path / "artifacts/scores/sums-base.parquet",
    )
    rule = {"rule": "chance", "id": [one.id for one in examples], "value": 0.01, "answer": "68"}
    pd.DataFrame(rule).to_parquet(tmp_path / "artifacts/scores/heuristics/sums.parquet")
    (tmp_path / "artifacts/base/model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "PAPERS", PUBLISHED)
    monkeypatch.setattr(publish, "stale", lambda stages: [])
    return publish.publish([], "mine")


def test_what_was_published_here_is_scored_again_to_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    again = scored_again(folder, tmp_path / "again")
    pd.testing.assert_frame_equal(again, scores_of(folder), check_dtype=False)
    assert 0 < again["correct"].mean() < 1 and not again["parsed"].all()
    assert numbers(folder, PAPERS)[0] == read_json(folder / "metrics.json")


def test_another_scorer_is_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.tasks import sums

    judged = sums.score
    monkeypatch.setattr(sums, "score", lambda examples, answers: judged(examples, ["0"] * len(answers)))
    assert not scored_again(folder, tmp_path / "again").equals(scores_of(folder))


def test_other_examples_are_noticed(folder: Path, tmp_path: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["tasks"]["sums"]["data"]["seed"] += 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(AssertionError, match="the test examples of sums are others now"):
        scored_again(folder, tmp_path / "again")
