"""Train one adapter, of any method, on one skill or several together: a point of an experiment on interference."""

import importlib
from pathlib import Path
from typing import Any

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.skills import Recipe, fit, read_skills, save, write_gates


def run(
    *,
    method: str,
    recipe: str,
    tasks: str,
    seed: int,
    model: In,
    examples: In,
    compute: Compute,
    settings: Recipe,
    adapter: Out,
    curve: Out,
    gates: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """``tasks``: names of the skills, in one word list; ``recipe``: which entry of ``recipes``."""
    prepare_process(compute, seed)
    module = importlib.import_module(f"pipeline.methods.{method}")
    chosen = module.Settings.parse(settings.adapter, f"recipes.{recipe}.adapter")
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_skills(
            splits(examples, tasks, "train"),
            splits(examples, tasks, "validation"),
            settings.training.validation_examples,
        )
    draw = torch.Generator().manual_seed(seed)
    composed = method == "csreft"
    with step(f"train on {', '.join(skills.names)}"):
        trained = module.initial(base.model, chosen, *([skills.names] if composed else []), draw)
        if composed:
            trained.supervise(skills.labels)
        rows = fit(
            base, trained, skills, training=settings.training, compute=compute, seed=seed, checkpoints=checkpoints
        )
    counts: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in trained.parameters())}
    if composed:
        prompts = [base.prompt_ids(example.messages) for example in skills.held_out]
        opened, probabilities = module.gates(trained, base.model, prompts, compute.batch_tokens)
        write_gates(gates, skills.held_out, opened.tolist(), probabilities.tolist())
        counts["parameters_without_router"] = counts["parameters"] - trained.router_parameters
    else:
        write_gates(gates, [], [], [])
    return save(trained, rows, skills, method=method, seed=seed, model=model, path=adapter, curve=curve, **counts)


def splits(examples: Path, tasks: str, split: str) -> list[Path]:
    """The files of one split of some tasks."""
    return [examples / task / f"{split}.jsonl" for task in tasks.split()]


if __name__ == "__main__":
    main()
