"""Train a baseline on one task by next-token prediction on its reference answers: what SVF experts are set beside."""

from typing import Any, Self

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.next_token import fit
from pipeline.training.variants import Sweep, adapter_settings, method_named


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
    with step("load the base model"):
        base = load_base(model, compute)

    def begin() -> Any:
        generator = torch.Generator().manual_seed(seed)
        return make(base.model, adapter, factors=None, generator=generator)

    with step(f"train {baseline}"):
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
        "method": method,
        "task": task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
    }
    return save_trained(learner.adapter(baseline), rows, path=expert, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
