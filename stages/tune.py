"""Train a small adapter on the same few prompts that a search for a mixture gets: the rival of few-shot adaptation.

Transformer² (arXiv 2501.06252, Table 8) sets IA3, trained for 100 and for 1000 steps on 3 to 20 prompts, beside its
own search. Any method of ``pipeline.methods`` will do that has ``Settings`` and ``initial(model, settings,
generator)`` and can be trained by next-token prediction.

Deviations
1. Whoever has a few prompts has nothing else to validate on: the loss on these same prompts says which of the
   validated states is kept. With ``validate_every`` equal to ``steps`` that is the last one, overfitted or not.
"""

from typing import Any

import torch

from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import method_module, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised


class Tuning(Section, at="tunings.{name}"):
    """method: module of ``pipeline.methods``. shots: how many prompts. adapter: the method's own settings."""

    method: str
    task: str
    shots: int
    adapter: dict[str, Any]
    training: supervised.Training


def run(
    *,
    name: str,
    seed: int,
    model: In,
    shots: In,
    compute: Compute,
    settings: Tuning,
    adapted: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    """Train the adapter ``name`` of params.yaml."""
    prepare_process(compute, seed)
    method = method_module(settings.method, "Settings", "initial")
    own = method.Settings.parse(settings.adapter, f"tunings.{name}.adapter")
    with step("load the base model"):
        base = load_base(model, compute)
        examples = read_examples(shots)[: settings.shots]
    with step(f"train {name} on {len(examples)} prompts"):
        trained = method.initial(base.model, own, torch.Generator().manual_seed(seed))
        rows = supervised.train(
            base,
            trained,
            examples=examples,
            validation=examples,
            training=settings.training,
            batch_tokens=compute.batch_tokens,
            seed=seed,
            checkpoints=checkpoints,
        )
    provenance = {
        "method": settings.method,
        "task": settings.task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": sum(parameter.numel() for parameter in trained.parameters()),
        "shots": len(examples),
    }
    return save_trained(trained, rows, path=adapted, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
