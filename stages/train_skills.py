"""Train one adapter, of any method, on one skill or several together: a point of an experiment on interference."""

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import method_module
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training.skills import Recipe, fit, read_gates, read_tasks, save, write_gates


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
    module = method_module(method, "Settings", "initial")
    chosen = module.Settings.parse(settings.adapter, f"recipes.{recipe}.adapter")
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_tasks(examples, tasks.split(), settings.training.validation_examples)
    draw = torch.Generator().manual_seed(seed)
    composed = method == "csreft"
    with step(f"train on {', '.join(skills.names)}"):
        trained = module.initial(base.model, chosen, *([skills.names] if composed else []), draw)
        if composed:
            trained.supervise(skills.labels)
        rows = fit(
            base, trained, skills, training=settings.training, compute=compute, seed=seed, checkpoints=checkpoints
        )
    routed: dict[str, int] = {}
    if composed:
        routed = read_gates(base, trained, skills, gates_of=module.gates, compute=compute, path=gates)
    else:
        write_gates(gates, [], [], [])
    return save(trained, rows, skills, method=method, seed=seed, model=model, path=adapter, curve=curve, **routed)


if __name__ == "__main__":
    main()
