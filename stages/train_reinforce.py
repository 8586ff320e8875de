"""Train one adapter of any method on one task by policy gradient: REINFORCE on the rewards of its own answers."""

from typing import Any

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.data.tasks import task_module
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import reinforce
from pipeline.training.loop import Row, Training, read_data
from pipeline.training.questions import questions_of, teaching
from pipeline.training.rollouts import rewarding
from pipeline.training.variants import beginning, provenance, swept


def run(
    *,
    name: str,
    row: str,
    method: str,
    task: str,
    seed: int,
    model: In,
    factors: In,
    train: In,
    validation: In,
    compute: Compute,
    settings: reinforce.Reinforced,
    decoding: Decoding,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """The metric ``rewarded`` is the share of all sampled answers that were."""
    if settings.adapter.get("dropout"):
        raise UserError(
            f"params.yaml: expected the dropout of '{row}' to be 0, got {settings.adapter['dropout']}: the answers "
            "that a policy gradient learns from are sampled without it; set it to 0"
        )
    prepare_process(compute, seed)
    chosen = settings.training
    with step("load the base model"):
        base = load_base(model, compute)
        begin = beginning(base.model, method, settings.adapter, factors=Factors(factors), seed=seed)
        score = task_module(task).score
        data = read_data(train, validation, chosen)
        reward = rewarding(base, score, chosen.wrong_reward)
        questions = questions_of(base, data, reward, training=chosen, decoding=decoding, compute=compute)
    if chosen.screen is not None:
        with step("screen the prompts"):
            questions = teaching(base, begin(), questions, chosen.screen, seed=seed, checkpoints=checkpoints)
            show_table("screened prompts", [{"asked": chosen.screen.prompts, "kept": len(questions.train)}])

    def once(training: Training) -> tuple[Any, list[Row]]:
        return reinforce.train(base, begin, questions, compute=compute, training=training)

    with step(f"train {name} by REINFORCE"):
        learner, rows = swept(settings.sweep, Training(chosen, seed, checkpoints), once, better=max)
    about = provenance(learner, method=method, seed=seed, model=model, task=task)
    metrics = save_trained(learner.adapter(name), rows, path=expert, curve=curve, provenance=about)
    return {**metrics, "rewarded": reinforce.share_rewarded(rows, task)}


if __name__ == "__main__":
    main()
