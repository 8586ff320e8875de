"""Train CS-ReFT, or another method with a router, on the answers of all skills together, and read its gates."""

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.loop import Training
from pipeline.training.skills import initial_routed, read_gates, read_skills
from pipeline.training.variants import provenance


def run(
    *,
    name: str,
    row: str,
    method: str,
    seed: int,
    model: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: supervised.Supervised,
    adapter: Out,
    curve: Out,
    gates: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """The skills are those of the examples; ``gates``: those of the validation prompts."""
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        skills = read_skills(train, validation, settings.training.validation_examples)
    with step(f"train {name} on {', '.join(skills.names)}"):
        trained = initial_routed(base, method, settings.adapter, skills=skills, seed=seed)
        training = Training(settings.training, seed, checkpoints)
        rows = supervised.train(base, trained, skills, compute=compute, training=training)
    routed = read_gates(base, trained, skills, method=method, compute=compute, path=gates)
    about = provenance(trained, method=method, seed=seed, model=model, tasks=list(skills.names), **routed)
    return save_trained(trained, rows, path=adapter, curve=curve, provenance=about)


if __name__ == "__main__":
    main()
