"""Add a skill to a trained CS-ReFT: a new subspace and gate are trained, what is old stays as it is."""

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import csreft
from pipeline.model.forward.adapters import load_adapter
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training.growing import Grown, enlarged
from pipeline.training.skills import Recipe, Skills, fit, read_gates, read_tasks, save


def run(
    *,
    recipe: str,
    task: str,
    seed: int,
    model: In,
    start: In,
    examples: In,
    compute: Compute,
    settings: Recipe,
    adapter: Out,
    curve: Out,
    gates: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """``task``: the new skill; its examples are trained on beside those of the skills that ``start`` has."""
    prepare_process(compute, seed)
    with step("load the base model and the adapter"):
        base = load_base(model, compute)
        before, _ = load_adapter(start)
        if not isinstance(before, csreft.CsReft):
            raise UserError(f"expected a CS-ReFT in {start}, got a {before.kind}; name another start")
        draw = torch.Generator().manual_seed(seed)
        config, tensors = enlarged(before.config(), before.state(), task, csreft.OPEN_BIAS, draw)
        read = read_tasks(examples, config["skills"], settings.training.validation_examples)
        skills = Skills(tuple(config["skills"]), read.examples, read.held_out)
    with step(f"train the subspace of {task}"):
        trained = csreft.from_state(config, tensors)
        trained.supervise(skills.labels)
        grown = Grown(trained)
        rows = fit(base, grown, skills, training=settings.training, compute=compute, seed=seed, checkpoints=checkpoints)
    routed = read_gates(base, trained, skills, gates_of=csreft.gates, compute=compute, path=gates)
    return save(
        trained,
        rows,
        skills,
        method="csreft",
        seed=seed,
        model=model,
        path=adapter,
        curve=curve,
        **routed,
        start=start.stem,
    )


if __name__ == "__main__":
    main()
