"""Train one ReFT on the answers of all skills together: what CS-ReFT, of equal size, is compared with."""

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import reft
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.skills import fit, read_skills, save


class Training(supervised.Training, at="reft.training"):
    """How the edits are trained."""


def run(
    *,
    seed: int,
    model: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: reft.Settings,
    training: Training,
    adapter: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_skills(train, validation, training.validation_examples)
    with step("train the edits"):
        trained = reft.initial(base.model, settings, torch.Generator().manual_seed(seed))
        rows = fit(base, trained, skills, training=training, compute=compute, seed=seed, checkpoints=checkpoints)
    return save(trained, rows, skills, method="reft", seed=seed, model=model, path=adapter, curve=curve)


if __name__ == "__main__":
    main()
