"""Models that see go through the stages that models of text go through, and get their eyes in stages of their own."""

from pathlib import Path

import pytest
import torch

from pipeline.core.artifacts import read_jsonl, read_tensors
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.data.splits import fill
from pipeline.data.written import write_splits
from pipeline.model.forward.adapters import load_adapter
from pipeline.model.forward.base import load_base
from pipeline.model.forward.tower import ColumnTower, ColumnTowerConfig
from pipeline.pictures.questions import KINDS
from pipeline.tasks import signs
from pipeline.training import sighted, tower
from pipeline.training.loop import Training
from stages import adapt, align_vision, factorize, generate, train_svf, train_tower
from tests.seeing import folder_of
from tests.tiny import tiny_compute
from tests.unit.training.conftest import PARAMS, TRAINING, Project

SIZES = {"test": 5, "few_shot": 3, "validation": 3, "train": 4}
SEARCH = {"shots": 3, "configurations": ["shared-normalised"], "population": 3, "elites": 2, "generations": 1}
SEARCH |= {"deviation": 0.5, "smoothing": 0.3}
TOWER = {"size": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "channels": 4}}
TOWER["training"] = {**TRAINING, "pictures": 6, "validation_examples": 4}  # type: ignore[assignment]
EYES = {"source": "eyes", "name": "toy with eyes", "of": "text", "token": "<|pad|>", "examples": 8, "tower": TOWER}
EYES |= {"adapter": PARAMS["lora"]["adapter"], "training": TRAINING}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "signs"
    write_splits(
        fill(signs.examples(1, signs.Options(kinds=tuple(KINDS))), SIZES), task="signs", domain="others", folder=folder
    )
    return folder


@pytest.mark.parametrize("family", ["llava_next", "smolvlm"])
def test_a_model_that_sees_is_trained_adapted_and_asked(family, pictures, tmp_path, monkeypatch):
    model = folder_of(family, tmp_path / "model")
    svf = {**PARAMS["svf"], "layers": 0.5}
    params = {**PARAMS, "svf": svf, "few_shot": SEARCH, "mixing": {"mix": "paper"}, "rows": {"svf": {}, "few_shot": {}}}
    seeing = Project(tmp_path, params)
    seeing.run(factorize, tmp_path, model=model)
    monkeypatch.setattr(signs, "score", _by_length)
    given = {"model": model, "task": "signs"}
    about = {"row": "svf", "method": "svf", "name": "signs-0"}
    files = {split: pictures / f"{split}.jsonl" for split in ("train", "validation")}
    seeing.run(train_svf, tmp_path, **given, **about, **files)
    expert, facts = load_adapter(tmp_path / "expert")
    assert {name.split(".")[2] for name in expert.experts} == {"1"}  # half of two layers
    assert facts["task"] == "signs"
    found = seeing.run(
        adapt,
        tmp_path / "adapted",
        **given,
        row="few_shot",
        strategy="few_shot",
        experts=[tmp_path / "expert"],
        shots=pictures / "few_shot.jsonl",
    )
    assert found
    seeing.run(generate, tmp_path, **given, adapter=tmp_path / "adapted/adapted", examples=pictures / "test.jsonl")
    assert [row["id"] for row in read_jsonl(tmp_path / "completions")] == [
        row["id"] for row in read_jsonl(pictures / "test.jsonl")
    ]


def _by_length(examples, answers):
    """A random model has some answers right: those of an even number of letters."""
    return [
        signs.Score(example.id, 0.0, len(answer) % 2 == 0, answer)
        for example, answer in zip(examples, answers, strict=True)
    ]


# ---- eyes ------------------------------------------------------------------------------------------------------------


def test_a_language_model_gets_eyes(project, tmp_path, monkeypatch):
    """Its vocabulary has no words and no letters of a byte-level one; both are given to it here."""
    monkeypatch.setattr(sighted, "words_of", lambda tokenizer: ["people", "north", "system"])
    monkeypatch.setattr(train_tower, "words_of", sighted.words_of)
    monkeypatch.setattr(align_vision, "words_of", sighted.words_of)
    hidden = torch.randn(len(tower.ALPHABET) + 2, 16, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(sighted, "characters", lambda embeddings, vocabulary: hidden)
    base = project.root / "base"
    tokenizer = load_base(base / "model", tiny_compute()).tokenizer
    params = {**PARAMS, "bases": {"seeing": {**EYES, "token": tokenizer.pad_token}}}
    eyed = Project(project.root, params)
    eyed.run(train_tower, tmp_path / "tower", name="seeing")
    tensors, about = read_tensors(tmp_path / "tower/tower")
    assert about["base"] == "seeing" and "tower.head.weight" in tensors and "projector.linear_1.weight" in tensors
    made = eyed.run(
        align_vision,
        tmp_path,
        name="seeing",
        unadapted=base / "base.safetensors",
        tower=tmp_path / "tower/tower",
    )
    assert made["base"] == "toy with eyes: Toy behind a small reader of signs that was trained here"
    seeing = load_base(tmp_path / "sighted", tiny_compute())
    assert torch.equal(seeing.whole.model.vision_tower.head.weight, tensors["tower.head.weight"])
    (example,) = sighted.asked(["people"], 1, "x")
    ids = seeing.prompt_ids(example.messages)
    assert sum(one >= seeing.eyes.vocabulary for one in ids) == 16
    with pytest.raises(UserError, match="expected a token of the vocabulary as the 'token' of the eyes"):
        settings = sighted.Eyed.parse({**EYES, "token": "<none>"}, "bases.seeing")
        sighted.together(base / "model", tmp_path / "tower/tower", settings, "float32")


def test_a_vocabulary_without_words_is_told(project):
    tokenizer = load_base(project.root / "base/model", tiny_compute()).tokenizer
    with pytest.raises(UserError, match="expected words among the tokens"):
        sighted.words_of(tokenizer)


def test_columns_that_are_characters_are_handed_on_in_order():
    made = ColumnTower(ColumnTowerConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, channels=2))
    torch.nn.init.ones_(made.nothing)
    columns = torch.arange(16.0)[None, :, None].expand(2, 16, 8)
    characters = torch.tensor([[0, 5, 5, 0, 5, 6, 0, 1, 7, *[0] * 7], [0] * 16])
    read, found = made.read(columns, characters)
    assert found[0, :6].tolist() == [5, 5, 6, 1, 7, 0] and not found[0, 6:].any() and not found[1].any()
    assert read[0, :5, 0].tolist() == [1.0, 4.0, 5.0, 7.0, 8.0]
    assert bool((read[0, 5:] == 1).all()) and bool((read[1] == 1).all())
    assert tower.spelled(found[0].tolist()) == "334 5" and tower.labels("334 5") == [5, 5, 6, 1, 7]


def test_a_tower_learns_two_signs_by_heart(tmp_path):
    drawn = sighted.drawn(["north", "people"], 4, "two")
    hidden = torch.randn(len(tower.ALPHABET) + 2, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    made = ColumnTower(ColumnTowerConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, channels=8))
    projector = torch.nn.Linear(32, 12)
    reader = tower.Reader(made, projector, hidden, autocast=False)
    settings = {**TRAINING, "steps": 60, "batch": 4, "learning_rate": 3e-3, "validate_every": 60, "pictures": 4}
    training = Training(tower.Reading.parse(settings, "training"), 0, Checkpoints(tmp_path))
    rows = tower.train(reader, drawn, drawn, training)
    assert rows[-1]["train"] < rows[1]["train"] / 2
