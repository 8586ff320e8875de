"""``train``, ``evaluate`` and ``load_expert``: what the commands do, for a program."""

import json
import shutil
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer

import selfadapt
from pipeline.core.artifacts import write_jsonl
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.serving import export
from pipeline.tasks import sums
from selfadapt import running
from tests.project import make_project, score_cells

IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("made") / "project")
    score_cells(made)
    asked = islice(sums.examples(0, sums.Options(smallest=1, largest=9)), 6)
    write_jsonl(made.folder / "data/tasks/sums/test.jsonl", (vars(example) for example in asked))
    return made


@pytest.fixture(scope="module")
def assistant(project):
    return selfadapt.Assistant.open(project.folder)


def test_a_strategy_is_scored_on_a_task_s_prompts(project, assistant):
    found = selfadapt.evaluate("expert:sums", "sums", project=assistant, limit=4)
    asked = list(islice(sums.examples(0, sums.Options(smallest=1, largest=9)), 4))
    tokens = project.params["tasks"]["sums"]["decoding"]["max_new_tokens"]
    turns = [(list(example.messages), "expert:sums") for example in asked]
    answers = [answer.text for answer in assistant.answer(turns, plain=True, max_new_tokens=tokens)]
    right = [score.correct for score in sums.score(asked, answers)]
    assert (found.n, list(found.answers), list(found.correct)) == (4, answers, right)
    assert found.low <= found.accuracy == sum(right) / 4 <= found.high


@pytest.mark.parametrize(
    ("task", "split", "says"), [("summs", "test", "a task out of"), ("sums", "train", "run prepare@sums")]
)
def test_what_cannot_be_scored_is_one_sentence(assistant, task, split, says):
    with pytest.raises(UserError, match=says):
        selfadapt.evaluate("base", task, project=assistant, split=split)


@pytest.mark.parametrize("name", ["expert:sums", "lora:sums", "mixture:few_shot-groceries", "csreft"])
def test_an_expert_is_loaded_into_peft(project, name):
    model = selfadapt.load_expert(name, project=project.folder)
    adapter, _ = project.read(project.file_of(name))
    base = model.unload if name == "csreft" else None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        found = model(input_ids=IDS).logits
        with model.disable_adapter():
            plain = model(input_ids=IDS).logits
        inner = base() if base else model.get_base_model()
    assert (found - plain).abs().max() > 0.1
    if name == "csreft":  # against the project's own way of attaching it
        with adapter.attached(inner, None) as attachment, torch.no_grad():
            attachment.begin(torch.arange(1), torch.ones_like(IDS, dtype=torch.bool))
            torch.testing.assert_close(inner(input_ids=IDS).logits, found, atol=1e-4, rtol=0)


def test_an_expert_is_loaded_from_a_folder_to_be_trained_on(project, tmp_path):
    export.peft(project, "expert:sums", tmp_path / "out")
    model = selfadapt.load_expert(f"expert:{tmp_path / 'out'}", project=project.folder, trainable=True)
    named = selfadapt.load_expert("sums", project=project.folder)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, named(input_ids=IDS).logits, atol=1e-5, rtol=0)
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_an_expert_that_is_not_there_is_one_sentence(project):
    with pytest.raises(UserError, match="expected the name of an expert"):
        selfadapt.load_expert("expert:summs", project=project.folder)


@pytest.fixture
def fresh(tmp_path, root) -> Path:
    """A project that nothing was run in, and rows."""
    shutil.copyfile(root / "pipeline/profiles/tiny.yaml", tmp_path / "params.yaml")
    shutil.copyfile(root / "dvc.yaml", tmp_path / "dvc.yaml")
    rows = [{"question": f"How much is {n} and 1?", "answer": str(n + 1)} for n in range(60)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_training_tells_what_was_scored(fresh, monkeypatch):
    def score(targets, jobs):
        for target in targets:
            stage, _, cell = target.partition("@")
            if stage == "score":
                path = Path("artifacts/scores") / f"{cell}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                right = 10 if cell.endswith("base") else 15
                pd.DataFrame({"correct": [n < right for n in range(20)]}).to_parquet(path)

    monkeypatch.setattr(running, "bring_up_to_date", score)
    monkeypatch.setattr(running, "_say_table", lambda name: None)
    found = selfadapt.train(fresh / "mine.jsonl", method=["svf", "lora"], project=fresh, worked=1)
    assert found == selfadapt.Trained("mine", ("expert:mine", "lora:mine"), {"base": 0.5, "svf": 0.75, "lora": 0.75})
    assert read_params(fresh / "params.yaml")["tasks"]["mine"]["data"]["rows"]["path"] == "mine.jsonl"


def test_a_stage_that_fails_is_an_error(fresh, monkeypatch):
    def fail(targets, jobs):
        raise typer.Exit(1)

    monkeypatch.setattr(running, "bring_up_to_date", fail)
    with pytest.raises(UserError, match="every stage of 'mine' to succeed"):
        selfadapt.train(fresh / "mine.jsonl", project=fresh)
    with pytest.raises(UserError, match="got 'epochs'"):
        selfadapt.train(fresh / "mine.jsonl", project=fresh, epochs=3)
