"""Train a LoRA on one task by next-token prediction on its reference answers: the baseline of an SVF expert."""

import torch

from pipeline.core.adapters import save_trained
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import lora
from pipeline.training import supervised


class Training(supervised.Training, at="lora.training"):
    """How the baseline is trained."""


def run(
    *,
    baseline: str,
    task: str,
    seed: int,
    model: In,
    train: In,
    validation: In,
    compute: Compute,
    adapter: lora.Settings,
    training: Training,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        examples = read_examples(train)
        held_out = read_examples(validation)[: training.validation_examples]
    with step(f"train {baseline}"):
        trained = lora.initial(base.model, adapter, torch.Generator().manual_seed(seed))
        rows = supervised.train(
            base,
            trained,
            examples=examples,
            validation=held_out,
            training=training,
            batch_tokens=compute.batch_tokens,
            seed=seed,
            checkpoints=checkpoints,
        )
    parameters = sum(parameter.numel() for parameter in trained.parameters())
    provenance = {
        "method": "lora",
        "task": task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": parameters,
    }
    return save_trained(trained, rows, path=expert, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
