"""Train CS-ReFT on the answers of all skills together, and read its gates on the validation prompts."""

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import csreft
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.skills import fit, read_gates, read_skills, save


class Training(supervised.Training, at="csreft.training"):
    """How subspaces and router are trained."""


def run(
    *,
    seed: int,
    model: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: csreft.Settings,
    training: Training,
    adapter: Out,
    curve: Out,
    gates: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_skills(train, validation, training.validation_examples)
    with step("train the subspaces and the router"):
        trained = csreft.initial(base.model, settings, skills.names, torch.Generator().manual_seed(seed))
        trained.supervise(skills.labels)
        rows = fit(base, trained, skills, training=training, compute=compute, seed=seed, checkpoints=checkpoints)
    routed = read_gates(base, trained, skills, gates_of=csreft.gates, compute=compute, path=gates)
    return save(trained, rows, skills, method="csreft", seed=seed, model=model, path=adapter, curve=curve, **routed)


if __name__ == "__main__":
    main()
