"""Train one variant of any method by next-token prediction on reference answers: half of the ablation."""

from typing import Any

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised, variants
from pipeline.training.next_token import fit
from pipeline.training.variants import method_named


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
    seed = settings.seed
    prepare_process(compute, seed)
    method = method_named(settings.method)
    adapter = method.Settings.parse(settings.adapter, "adapter")
    with step("load the base model"):
        base, decomposed = load_base(model, compute), Factors(factors)

    def begin() -> Any:
        generator = torch.Generator().manual_seed(seed)
        return method.learner(base.model, adapter, factors=decomposed, generator=generator)

    with step(f"train {variant} on reference answers"):
        learner, rows = fit(
            base,
            begin,
            train=train,
            validation=validation,
            training=settings.training,
            sweep=settings.sweep,
            compute=compute,
            seed=seed,
            checkpoints=checkpoints,
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
