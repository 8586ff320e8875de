"""Train one adapter of any method on one task by next-token prediction on its reference answers.

With ``shots`` it is trained on a few prompts alone, the rival of few-shot adaptation: Transformer² (arXiv 2501.06252,
Table 8) sets (IA)³, trained for 100 and for 1000 steps on 3 to 20 prompts, beside its own search.

Deviations
1. Whoever has a few prompts has nothing else to validate on: the loss on these same prompts says which of the
   validated states is kept. With ``validate_every`` equal to ``steps`` that is the last one, overfitted or not.
"""

from typing import Any

from pydantic import Field

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import supervised
from pipeline.training.loop import Data, Row, Training, read_data
from pipeline.training.variants import beginning, provenance, swept


class Settings(supervised.Supervised):
    """shots: how many examples of both files are used, from their start; None: all."""

    shots: int | None = Field(default=None, ge=1)


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
    settings: Settings,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        begin = beginning(base.model, method, settings.adapter, factors=Factors(factors), seed=seed)
        data = read_data(train, validation, settings.training)
        data = Data(data.train[: settings.shots], data.validation[: settings.shots])

    def once(training: Training) -> tuple[Any, list[Row]]:
        learner = begin()
        return learner, supervised.train(base, learner, data, compute=compute, training=training)

    with step(f"train {name} on {len(data.train)} answers"):
        training = Training(settings.training, seed, checkpoints)
        learner, rows = swept(settings.sweep, training, once, better=min)
    about = provenance(learner, method=method, seed=seed, model=model, task=task)
    if settings.shots:
        about["shots"] = len(data.train)
    return save_trained(learner.adapter(name), rows, path=expert, curve=curve, provenance=about)


if __name__ == "__main__":
    main()
