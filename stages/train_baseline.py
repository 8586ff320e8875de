"""Train a baseline on one task by next-token prediction on its reference answers: what SVF experts are set beside."""

from typing import Any, Self

import torch

from pipeline.core.adapters import save_trained
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.training import supervised
from pipeline.variants import Sweep, adapter_settings, method_named, swept


class Settings(Section, at="{method}"):
    """adapter: the method's own, checked by its ``Settings``. sweep: what is tried in place of one rate and clip."""

    adapter: dict[str, Any]
    training: supervised.Training
    sweep: Sweep | None = None

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        settings = super().parse(value, where)
        adapter_settings(where, settings.adapter, f"{where}.adapter")
        return settings


def run(
    *,
    baseline: str,
    method: str,
    task: str,
    seed: int,
    model: In,
    train: In,
    validation: In,
    compute: Compute,
    settings: Settings,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)
    make, adapter = method_named(method).learner, adapter_settings(method, settings.adapter, f"{method}.adapter")
    training = settings.training
    with step("load the base model"):
        base = load_base(model, compute)
        examples = read_examples(train)
        held_out = read_examples(validation)[: training.validation_examples]

    def once(learning_rate: float, clip: float, kept: Checkpoints) -> tuple[Any, list[dict[str, Any]]]:
        generator = torch.Generator().manual_seed(seed)
        learner = make(base.model, adapter, factors=None, generator=generator)
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

    with step(f"train {baseline}"):
        learner, rows = swept(
            settings.sweep, training.learning_rate, training.clip, once, checkpoints=checkpoints, best=min
        )
    provenance = {
        "method": method,
        "task": task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
    }
    return save_trained(learner.adapter(baseline), rows, path=expert, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
