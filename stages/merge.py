"""Make another base model of the same shape: train a LoRA on instruction-style data and merge it into the weights.

It stands in for a second published model where none can be had: the paper moves experts from Llama-3-8B to
Mistral-7B, which share every shape and no weight. What is made here shares its origin with the base model, and its
name says so.
"""

import shutil

import torch

from pipeline.core.artifacts import atomic_folder
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import lora
from pipeline.methods.base import Unadapted, provenance
from pipeline.model.forward.adapters import load_adapter, save_adapter
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.skills import fit, read_skills


class Merged(Section, at="merged.{name}"):
    """seed: of the training. data: domain to the task whose training split is learnt. adapter, training: the LoRA's."""

    seed: int
    data: dict[str, str]
    adapter: lora.Settings
    training: supervised.Training


def run(
    *,
    name: str,
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
    """Make the base model ``name`` of params.yaml out of ``model``, which ``unadapted`` says the name of."""
    prepare_process(compute, settings.seed)
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_skills(train, validation, settings.training.validation_examples)
    with step("train a LoRA"):
        trained = lora.initial(base.model, settings.adapter, torch.Generator().manual_seed(settings.seed))
        rows = fit(
            base,
            trained,
            skills,
            training=settings.training,
            compute=compute,
            seed=settings.seed,
            checkpoints=checkpoints,
        )
    with step("merge it into the weights"):
        # float32 whatever it was trained in: the sum is not rounded before it is decomposed
        whole = load_base(model, compute.model_copy(update={"dtype": "float32"}))
        with trained.attached(whole.model, None), atomic_folder(merged) as folder:
            shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"), dirs_exist_ok=True)
            whole.model.save_pretrained(folder)
    chosen = next(row for row in rows if row["chosen"])
    of = load_adapter(unadapted)[1]["base"]
    label = f"{name}, {of} with a LoRA on {', '.join(settings.data.values())} merged into it"
    save_adapter(adapter, Unadapted(), provenance(label, whole.model.num_parameters()))
    return {
        "base": label,
        "chosen_step": chosen["step"],
        "validation_before": rows[0]["validation"],
        "validation": chosen["validation"],
    }


if __name__ == "__main__":
    main()
