"""One adapter trained on one task's reference answers, at the rates and clips of a sweep: what stages for it share.

It joins what the parts do not know of each other: the trainer of ``pipeline.training`` and the sweep of
``pipeline.training.variants``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.model.forward.base import Base, Compute
from pipeline.training import supervised
from pipeline.training.variants import Sweep, swept


def fit(
    base: Base,
    begin: Callable[[], Any],
    *,
    train: Path,
    validation: Path,
    training: supervised.Training,
    sweep: Sweep | None,
    compute: Compute,
    seed: int,
    checkpoints: Checkpoints,
) -> tuple[Any, list[dict[str, Any]]]:
    """Train what ``begin`` makes, anew for each pair of the sweep; the learner of least validation loss, and the curve.

    train, validation: files of examples; of the second the first ``validation_examples`` are used.
    """
    examples, held_out = read_examples(train), read_examples(validation)[: training.validation_examples]

    def once(learning_rate: float, clip: float, kept: Checkpoints) -> tuple[Any, list[dict[str, Any]]]:
        learner = begin()
        rows = supervised.train(
            base,
            learner,
            examples=examples,
            validation=held_out,
            training=training.model_copy(update={"learning_rate": learning_rate, "clip": clip}),
            batch_tokens=compute.batch_tokens,
            seed=seed,
            checkpoints=kept,
        )
        return learner, rows

    return swept(sweep, training.learning_rate, training.clip, once, checkpoints=checkpoints, best=min)
