"""Make another base model of the same shape: train a LoRA on instruction-style data and merge it into the weights.

It stands in for a second published model where none can be had: the paper moves experts from Llama-3-8B to
Mistral-7B, which share every shape and no weight. What is made here shares its origin with the base model, and its
name says so.
"""

import shutil
from typing import Any, Literal

from pipeline.core.artifacts import atomic_folder
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.forward.adapters import chosen_state, load_adapter, save_adapter
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.loop import Training
from pipeline.training.skills import initial, read_skills

TITLES = {"lora": "LoRA", "dora": "DoRA", "ia3": "(IA)³"}  # what the label calls the method


class Merged(Section, at="bases.{name}"):
    """of: the base model that it is made of (default: the profile's). adapter: the method's own settings."""

    source: Literal["merge"]
    of: str | None = None
    adapter: dict[str, Any]
    training: supervised.Answering


def run(
    *,
    name: str,
    method: str,
    seed: int,
    model: In,
    unadapted: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: Merged,
    merged: Out,
    adapter: Out,
    checkpoints: Checkpoints,
) -> dict[str, object]:
    """Make the base model ``name`` of params.yaml out of ``model``; ``unadapted`` says what that one is called."""
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_skills(train, validation, settings.training.validation_examples)
    title = TITLES.get(method, method)
    with step(f"train a {title}"):
        trained = initial(base, method, settings.adapter, seed=seed)
        training = Training(settings.training, seed, checkpoints)
        rows = supervised.train(base, trained, skills, compute=compute, training=training)
    with step("merge it into the weights"):
        # float32 whatever it was trained in: the sum is not rounded before it is decomposed
        whole = load_base(model, compute.model_copy(update={"dtype": "float32"}))
        with trained.attached(whole.model, None), atomic_folder(merged) as folder:
            shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"), dirs_exist_ok=True)
            whole.model.save_pretrained(folder)
    of = load_adapter(unadapted)[1]["base"]
    label = f"{name}, {of} with a {title} on {', '.join(skills.names)} merged into it"
    save_adapter(adapter, Unadapted(), provenance(label, whole.model.num_parameters()))
    return {"base": label, **chosen_state(rows)}


if __name__ == "__main__":
    main()
