"""The stages that train: what they make, what they say of it, and what they refuse."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file

from pipeline.core.artifacts import read_json, read_jsonl
from pipeline.core.errors import UserError
from pipeline.core.types import Score
from pipeline.model.decoding.batch import Answer
from pipeline.model.forward.adapters import load_adapter
from pipeline.model.forward.base import load_base
from pipeline.tasks import sums
from pipeline.training import rollouts
from stages import (
    classify,
    fit_classifier,
    grow_skills,
    merge,
    train_csreft,
    train_head,
    train_reinforce,
    train_skills,
    train_supervised,
    train_svf,
)
from tests.tiny import same_tensors, tiny_compute
from tests.unit.training.conftest import Project

LORA = {"method": "lora", "task": "sums", "name": "lora-sums-0"}


def on_sums(project: Project) -> dict:
    return {"train": project.data("sums", "train"), "validation": project.data("sums", "validation")}


@pytest.fixture
def half_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model has some answers right, those of an even sum of letters, and ends them all."""
    generate = rollouts.generate

    def score(examples, answers) -> list[Score]:
        even = [sum(map(ord, answer)) % 2 == 0 for answer in answers]
        return [Score(example.id, 0.0, right, None) for example, right in zip(examples, even, strict=True)]

    def ended(*given, **named) -> list[list[Answer]]:
        return [[replace(one, finished=True) for one in answers] for answers in generate(*given, **named)]

    monkeypatch.setattr(sums, "score", score)
    monkeypatch.setattr(rollouts, "generate", ended)


def test_an_expert_is_trained_by_its_rewards(project, tmp_path, half_right):
    metrics = project.run(train_svf, tmp_path, row="svf", method="svf", task="sums", name="sums-0", **on_sums(project))
    adapter, facts = load_adapter(tmp_path / "expert")
    assert adapter.mixture.experts == ("sums-0",) and 0 < metrics["rewarded"] < 1
    expected = {"method": "svf", "task": "sums", "seed": 0, "base": "base", "parameters": metrics["parameters"]}
    assert facts == {**expected, "steps": metrics["chosen_step"]}
    curve = read_jsonl(tmp_path / "curve")
    assert {"train", "validation", "kl_coefficient", "gradient_norm", "chosen"} <= set(curve[1])


def test_answers_that_are_sampled_without_dropout_are_not_learnt_from_with_it(project, tmp_path):
    with pytest.raises(UserError, match="expected the dropout of 'dropped' to be 0, got 0.1"):
        project.run(train_reinforce, tmp_path, row="dropped", **LORA, **on_sums(project))


def test_an_adapter_is_trained_on_reference_answers(project, tmp_path):
    metrics = project.run(train_supervised, tmp_path, row="lora", **LORA, **on_sums(project))
    adapter, facts = load_adapter(tmp_path / "expert")
    assert adapter.kind == "lora" and "shots" not in facts and facts["parameters"] == metrics["parameters"]
    assert metrics["validation"] < metrics["validation_before"]


def test_an_adapter_is_tuned_on_so_many_prompts_alone(project, tmp_path):
    few = project.data("uses", "few_shot")
    given = {"row": "few", "method": "lora", "task": "uses", "name": "few"}
    project.run(train_supervised, tmp_path / "a", **given, train=few, validation=few)
    _, facts = load_adapter(tmp_path / "a/expert")
    assert facts["shots"] == 3
    shorter = tmp_path / "shorter.jsonl"
    shorter.write_text("".join(few.read_text().splitlines(keepends=True)[:3]))
    project.run(train_supervised, tmp_path / "b", **given, train=shorter, validation=shorter)
    assert same_tensors(*(load_file(tmp_path / f"{name}/expert") for name in "ab"))
    project.run(train_supervised, tmp_path / "c", **{**given, "row": "lora"}, train=few, validation=few)
    assert not same_tensors(*(load_file(tmp_path / f"{name}/expert") for name in "ac"))


def both(project: Project, *more: str) -> dict:
    tasks = ("sums", "kinds", *more)
    return {"train": project.files("train", *tasks), "validation": project.files("validation", *tasks)}


def test_skills_are_trained_together(project, tmp_path):
    project.run(train_skills, tmp_path, row="reft", method="reft", **both(project))
    adapter, facts = load_adapter(tmp_path / "adapter")
    assert adapter.kind == "reft" and facts["tasks"] == ["sums", "kinds"] and facts["method"] == "reft"
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "curve", "checkpoints"}


def test_a_method_says_itself_whether_it_routes_its_data(project, tmp_path):
    with pytest.raises(UserError, match="got 'csreft', which has a router; train it by train_csreft"):
        project.run(train_skills, tmp_path, row="csreft", method="csreft", **both(project))
    with pytest.raises(UserError, match="got 'reft', whose module has no 'gates'"):
        project.run(train_csreft, tmp_path, row="reft", method="reft", **both(project))


def test_a_skill_is_added_to_a_router_that_was_trained(project, tmp_path):
    project.run(train_csreft, tmp_path / "old", row="csreft", method="csreft", **both(project))
    _, facts = load_adapter(tmp_path / "old/adapter")
    assert facts["parameters_without_router"] < facts["parameters"]
    gates = read_jsonl(tmp_path / "old/gates")
    assert [(row["skill"], len(row["gates"])) for row in gates] == [("sums", 2)] * 4 + [("kinds", 2)] * 4
    given = {"row": "csreft", "method": "csreft", "start": tmp_path / "old/adapter"}
    project.run(grow_skills, tmp_path / "new", **given, **both(project, "uses"))
    grown, facts = load_adapter(tmp_path / "new/adapter")
    assert grown.config()["skills"] == facts["tasks"] == ["sums", "kinds", "uses"] and facts["start"] == "adapter"
    assert [len(row["gates"]) for row in read_jsonl(tmp_path / "new/gates")] == [3] * 12
    with pytest.raises(UserError, match="expected examples of one skill beside sums, kinds, .* got none"):
        project.run(grow_skills, tmp_path / "none", **given, **both(project))


def test_a_merged_base_differs_in_the_adapted_matrices_alone_and_says_what_it_is(project, tmp_path):
    unadapted = project.root / "base/base.safetensors"
    made = project.run(merge, tmp_path, name="tuned", method="lora", unadapted=unadapted, **both(project))
    old, new = (
        load_file(folder / "model.safetensors") for folder in (project.root / "base/model", tmp_path / "merged")
    )
    changed = {name for name in old if not old[name].equal(new[name])}
    assert changed == {name for name in old if "q_proj" in name or "v_proj" in name}
    assert made["validation"] < made["validation_before"]
    adapter, facts = load_adapter(tmp_path / "adapter")
    assert adapter.kind == "base" and facts["base"] == "tuned, Toy with a LoRA on sums, kinds merged into it"
    models = [load_base(folder, tiny_compute()) for folder in (project.root / "base/model", tmp_path / "merged")]
    assert models[0].answer_ids("7 + 1") == models[1].answer_ids("7 + 1")


def test_the_classification_expert_learns_from_the_reward_of_every_name(project, tmp_path):
    project.run(fit_classifier, tmp_path, **both(project))
    adapter, facts = load_adapter(tmp_path / "expert")
    assert adapter.mixture.experts == ("classifier",) and facts["task"] == "classification"
    for row in read_jsonl(tmp_path / "curve")[1:]:  # the expected reward of all names, and not that of samples
        assert row["train"] == pytest.approx(2 * row["right"] - 1) and "mixed" not in row and row["entropy"] > 0


def test_a_head_is_trained_and_labels_test_prompts(project, tmp_path):
    about = {"method": "reft", "subset": "s", "label": "label", "metric": "accuracy"}
    metrics = project.run(train_head, tmp_path, row="reft", token="last", **about, **both(project))
    assert 0 <= metrics["accuracy"] <= 1
    project.run(
        classify, tmp_path, adapter=tmp_path / "adapter", examples=project.files("test", "sums", "kinds"), **about
    )
    measured = read_json(tmp_path / "measured")
    assert measured["n"] == 8 and measured["parameters_without_head"] < measured["parameters"]
    given = [row["given"] == row["label"] for row in read_jsonl(tmp_path / "labels")]
    assert measured["value"] == sum(given) / 8
    with pytest.raises(UserError, match="got 'csreft', which has a router"):
        project.run(train_head, tmp_path, **{**about, "method": "csreft"}, row="csreft", token="last", **both(project))
