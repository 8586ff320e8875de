"""Train CS-ReFT on the answers of all skills together, and read its gates on the validation prompts."""

import torch

from pipeline.core.adapters import save_trained
from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.models import Compute, load_base, prepare_process
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import csreft
from pipeline.training import supervised


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
        examples = [example for path in train for example in read_examples(path)]
        held_out = [example for path in validation for example in read_examples(path)[: training.validation_examples]]
        skills = list(dict.fromkeys(example.meta["task"] for example in examples))
    with step("train the subspaces and the router"):
        trained = csreft.initial(base.model, settings, skills, torch.Generator().manual_seed(seed))
        trained.supervise([skills.index(example.meta["task"]) for example in examples])
        rows = supervised.train(
            base,
            trained,
            examples=examples,
            validation=held_out,
            training=training,
            batch_tokens=compute.batch_tokens,
            seed=seed,
            checkpoints=checkpoints,
        )
    with step("read the gates"):
        prompts = [base.prompt_ids(example.messages) for example in held_out]
        opened, probabilities = csreft.gates(trained, base.model, prompts, compute.batch_tokens)
    parameters = sum(parameter.numel() for parameter in trained.parameters())
    provenance = {
        "method": "csreft",
        "tasks": skills,
        "seed": seed,
        "base": model.parent.name,
        "parameters": parameters,
        "parameters_without_router": parameters - trained.router_parameters,
    }
    write_jsonl(
        gates,
        (
            {"id": example.id, "skill": example.meta["task"], "gates": gate, "probabilities": probability}
            for example, gate, probability in zip(held_out, opened.tolist(), probabilities.tolist(), strict=True)
        ),
    )
    return save_trained(trained, rows, path=adapter, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
