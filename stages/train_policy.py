"""Train one variant of any method by policy gradient, as an SVF expert is: the other half of the ablation."""

import importlib
from typing import Any

import torch

from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import reinforce, variants
from pipeline.training.variants import method_named, swept


class Variant(variants.Variant, at="ablations.policy_gradient.{variant}"):
    """How it is trained. scorer: of the task's rewards."""

    scorer: str
    training: reinforce.Reinforce


def run(
    *,
    variant: str,
    task: str,
    model: In,
    factors: In,
    train_split: In,
    validation_split: In,
    compute: Compute,
    settings: Variant,
    decoding: Decoding,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    seed, training = settings.seed, settings.training
    prepare_process(compute, seed)
    score = importlib.import_module(f"pipeline.tasks.{task}").score
    method = method_named(settings.method)
    adapter = method.Settings.parse(settings.adapter, "adapter")
    if settings.adapter.get("dropout"):
        raise UserError(
            f"params.yaml: expected the dropout of '{variant}' to be 0, got {settings.adapter['dropout']}: the answers "
            "that a policy gradient learns from are sampled without it; set it to 0"
        )
    with step("load the base model"):
        base, decomposed = load_base(model, compute), Factors(factors)
        examples, held_out = read_examples(train_split), read_examples(validation_split)

    def begin() -> Any:
        generator = torch.Generator().manual_seed(seed)
        return method.learner(base.model, adapter, factors=decomposed, generator=generator)

    def once(learning_rate: float, clip: float, kept: Checkpoints) -> tuple[Any, list[dict[str, Any]]]:
        return reinforce.train(
            base,
            begin,
            train_examples=examples,
            validation_examples=held_out,
            reward=reinforce.rewarding(score),
            settings=training.model_copy(update={"learning_rate": learning_rate, "clip_norm": clip}),
            compute=compute,
            draw=reinforce.written(
                base,
                compute=compute,
                max_new_tokens=decoding.max_new_tokens,
                samples=training.samples,
                temperature=training.temperature,
            ),
            advantage=training.advantage,
            seed=seed,
            checkpoints=kept,
        )

    with step(f"train {variant} by policy gradient"):
        learner, rows = swept(
            settings.sweep, training.learning_rate, training.clip_norm, once, checkpoints=checkpoints, best=max
        )
    provenance = {
        "method": settings.method,
        "objective": "policy_gradient",
        "task": task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
    }
    return save_trained(learner.adapter(variant), rows, path=expert, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
