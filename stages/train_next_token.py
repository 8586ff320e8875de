"""Train one variant of any method by next-token prediction on reference answers: half of the ablation."""

from typing import Any

import torch

from pipeline import variants
from pipeline.core.adapters import Factors, save_trained
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.training import supervised
from pipeline.variants import method_named, swept


class Variant(variants.Variant, at="ablations.next_token.{variant}"):
    """How it is trained."""

    training: supervised.Training


def run(
    *,
    variant: str,
    model: In,
    factors: In,
    train: In,
    validation: In,
    compute: Compute,
    settings: Variant,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    seed, training = settings.seed, settings.training
    prepare_process(compute, seed)
    method = method_named(settings.method)
    adapter = method.Settings.parse(settings.adapter, "adapter")
    with step("load the base model"):
        base, decomposed = load_base(model, compute), Factors(factors)
        examples = read_examples(train)
        held_out = read_examples(validation)[: training.validation_examples]

    def once(learning_rate: float, clip: float, kept: Checkpoints) -> tuple[Any, list[dict[str, Any]]]:
        generator = torch.Generator().manual_seed(seed)
        learner = method.learner(base.model, adapter, factors=decomposed, generator=generator)
        rows = supervised.train(
            base,
            learner,
            examples=examples,
            validation=held_out,
            training=training.model_copy(update={"learning_rate": learning_rate, "clip": clip}),
            batch_tokens=compute.batch_tokens,
            seed=seed,
            checkpoints=kept,
        )
        return learner, rows

    with step(f"train {variant} on reference answers"):
        learner, rows = swept(
            settings.sweep, training.learning_rate, training.clip, once, checkpoints=checkpoints, best=min
        )
    provenance = {
        "method": settings.method,
        "objective": "next_token",
        "task": settings.task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
    }
    return save_trained(learner.adapter(variant), rows, path=expert, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
