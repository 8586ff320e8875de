"""Add a skill to a trained CS-ReFT: a new subspace and gate are trained, what is old stays as it is."""

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import load_adapter, method_module, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.growing import Grown, enlarged, new_skill
from pipeline.training.loop import Training
from pipeline.training.skills import Skills, read_gates, read_skills
from pipeline.training.variants import provenance


def run(
    *,
    name: str,
    row: str,
    method: str,
    seed: int,
    model: In,
    start: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: supervised.Supervised,
    adapter: Out,
    curve: Out,
    gates: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """The new skill is the one whose examples ``start`` does not know; they are trained on beside the old skills'."""
    prepare_process(compute, seed)
    module = method_module(method, "OPEN_BIAS", "from_state", "gates")
    with step("load the base model and the adapter"):
        base = load_base(model, compute)
        before, _ = load_adapter(start)
        if before.kind != method:
            raise UserError(f"expected an adapter of {method} in {start}, got one of {before.kind}; name another start")
        read = read_skills(train, validation, settings.training.validation_examples)
        added = new_skill(before.config()["skills"], read.names)
        draw = torch.Generator().manual_seed(seed)
        config, tensors = enlarged(before.config(), before.state(), added, module.OPEN_BIAS, draw)
        skills = Skills(read.train, read.validation, tuple(config["skills"]))
    with step(f"train the subspace of {added}"):
        trained = module.from_state(config, tensors)
        trained.supervise(skills.labels)
        training = Training(settings.training, seed, checkpoints)
        rows = supervised.train(base, Grown(trained), skills, compute=compute, training=training)
    routed = read_gates(base, trained, skills, method=method, compute=compute, path=gates)
    about = provenance(
        trained, method=method, seed=seed, model=model, tasks=list(skills.names), start=start.stem, **routed
    )
    return save_trained(trained, rows, path=adapter, curve=curve, provenance=about)


if __name__ == "__main__":
    main()
