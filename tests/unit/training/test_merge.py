"""The stages that train on little: another base by a merged LoRA, and an adapter tuned on a few prompts."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.core.artifacts import write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.forward.adapters import load_adapter, save_adapter
from pipeline.model.forward.base import Compute, load_base
from stages import merge, tune
from stages.initialise import Initialised, chat_tokenizer, random_model

COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=256, cache_tokens=1000)
ADAPTER = {"rank": 2, "alpha": 4, "dropout": 0.0, "modules": ["q_proj", "v_proj"]}
TRAINING = {"steps": 3, "batch": 2, "learning_rate": 0.01, "schedule": "linear", "warmup": 0.0, "weight_decay": 0.0}
TRAINING |= {"clip": 1.0, "validate_every": 3, "validation_examples": 2, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model and the examples of one task."""
    root = tmp_path_factory.mktemp("project")
    meta = {"task": "sums"}
    rows = [
        {"id": f"{a}", "messages": [{"role": "user", "content": f"{a} + 1 ="}], "target": f"{a + 1}", "meta": meta}
        for a in range(8)
    ]
    write_jsonl(root / "few.jsonl", rows)
    tokenizer = chat_tokenizer([f"{row['id']} + 1 = {row['target']}" for row in rows], 300)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "intermediate_size": 24}
    settings = Initialised(name="tiny", seed=0, **shape, vocabulary=300, max_positions=64)
    model = random_model(settings, tokenizer)
    model.save_pretrained(root / "base/model")
    tokenizer.save_pretrained(root / "base/model")
    save_adapter(root / "base/base.safetensors", Unadapted(), provenance("Toy", model.num_parameters()))
    return root


def test_a_merged_base_differs_in_the_adapted_matrices_alone_and_says_what_it_is(project: Path) -> None:
    settings = merge.Merged.parse(
        {"seed": 0, "data": {"math": "sums"}, "adapter": ADAPTER, "training": TRAINING}, "merged.tuned"
    )
    found = merge.run(
        name="tuned",
        model=project / "base/model",
        unadapted=project / "base/base.safetensors",
        train=[project / "few.jsonl"],
        validation=[project / "few.jsonl"],
        compute=COMPUTE,
        settings=settings,
        merged=project / "tuned/model",
        adapter=project / "tuned/base.safetensors",
        checkpoints=Checkpoints(project / "checkpoints"),
    )
    old, new = (load_file(project / f"{name}/model/model.safetensors") for name in ("base", "tuned"))
    changed = {name for name in old if not old[name].equal(new[name])}
    assert changed == {name for name in old if "q_proj" in name or "v_proj" in name}
    assert found["validation"] < found["validation_before"]
    adapter, facts = load_adapter(project / "tuned/base.safetensors")
    assert adapter.kind == "base" and facts["base"] == "tuned, Toy with a LoRA on sums merged into it"
    ids = [load_base(project / f"{name}/model", COMPUTE).answer_ids("7 + 1") for name in ("base", "tuned")]
    assert ids[0] == ids[1]


def tuned(project: Path, folder: Path, **changed: object) -> dict:
    settings = {"method": "lora", "task": "sums", "shots": 3, "adapter": ADAPTER, "training": TRAINING, **changed}
    return tune.run(
        name="few",
        seed=0,
        model=project / "base/model",
        shots=project / "few.jsonl",
        compute=COMPUTE,
        settings=tune.Tuning.parse(settings, "tunings.few"),
        adapted=folder / "few.safetensors",
        curve=folder / "few.jsonl",
        checkpoints=Checkpoints(folder / "checkpoints"),
    )


def test_an_adapter_is_tuned_on_so_many_prompts_and_keeps_its_last_state(project: Path, tmp_path: Path) -> None:
    found = tuned(project, tmp_path)
    adapter, facts = load_adapter(tmp_path / "few.safetensors")
    assert adapter.kind == "lora" and facts["shots"] == 3 and facts["parameters"] == found["parameters"]
    assert found["chosen_step"] == 3 and found["validation"] < found["validation_before"]


def test_a_methods_own_settings_are_checked_where_they_stand(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'tunings\.few\.adapter\.rnk' is not a known setting; did you mean 'rank'"):
        tuned(project, tmp_path, adapter={**ADAPTER, "rnk": 3})
    assert not list(tmp_path.iterdir())
