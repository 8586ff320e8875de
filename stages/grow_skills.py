"""Add a skill to a trained CS-ReFT: a new subspace and gate are trained, what is old stays as it is."""

from pathlib import Path

import torch

from pipeline.core.adapters import load_adapter
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.growth import Grown, enlarged
from pipeline.methods import csreft
from pipeline.skills import Recipe, Skills, fit, read_skills, save, write_gates


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
        read = read_skills(
            splits(examples, config["skills"], "train"),
            splits(examples, config["skills"], "validation"),
            settings.training.validation_examples,
        )
        skills = Skills(tuple(config["skills"]), read.examples, read.held_out)
    with step(f"train the subspace of {task}"):
        trained = csreft.from_state(config, tensors)
        trained.supervise(skills.labels)
        grown = Grown(trained)
        rows = fit(base, grown, skills, training=settings.training, compute=compute, seed=seed, checkpoints=checkpoints)
    with step("read the gates"):
        prompts = [base.prompt_ids(example.messages) for example in skills.held_out]
        opened, probabilities = csreft.gates(trained, base.model, prompts, compute.batch_tokens)
    write_gates(gates, skills.held_out, opened.tolist(), probabilities.tolist())
    parameters = sum(parameter.numel() for parameter in trained.parameters())
    return save(
        trained,
        rows,
        skills,
        method="csreft",
        seed=seed,
        model=model,
        path=adapter,
        curve=curve,
        parameters=parameters,
        parameters_without_router=parameters - trained.router_parameters,
        start=start.stem,
    )


def splits(examples: Path, tasks: list[str], split: str) -> list[Path]:
    """The files of one split of some tasks."""
    return [examples / task / f"{split}.jsonl" for task in tasks]


if __name__ == "__main__":
    main()
