"""Train one ReFT on the answers of all skills together: what CS-ReFT, of equal size, is compared with."""

import torch

from pipeline.core.adapters import save_trained
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import reft
from pipeline.training import supervised


class Training(supervised.Training, at="reft.training"):
    """How the edits are trained."""


def run(
    *,
    seed: int,
    model: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: reft.Settings,
    training: Training,
    adapter: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        examples = [example for path in train for example in read_examples(path)]
        held_out = [example for path in validation for example in read_examples(path)[: training.validation_examples]]
    with step("train the edits"):
        trained = reft.initial(base.model, settings, torch.Generator().manual_seed(seed))
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
        "method": "reft",
        "tasks": list(dict.fromkeys(example.meta["task"] for example in examples)),
        "seed": seed,
        "base": model.parent.name,
        "parameters": parameters,
    }
    return save_trained(trained, rows, path=adapter, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
