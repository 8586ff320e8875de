"""Train a classification head, and the edits below it, on labelled prompts: GLUE, say.

The state is kept that does best on validation by the task's own metric, which is how GLUE is done; equals by loss.
"""

import sys

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import head
from pipeline.methods.common.edits import width_of
from pipeline.model.forward.adapters import Attachment, method_module
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.scoring import metrics
from pipeline.training.reading import labelled, predict, reader
from pipeline.training.skills import Recipe, Skills, fit, read_tasks, save


def run(
    *,
    method: str,
    recipe: str,
    tasks: str,
    subset: str,
    label: str,
    read: str,
    metric: str,
    seed: int,
    model: In,
    examples: In,
    compute: Compute,
    settings: Recipe,
    adapter: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """``subset``: of the tasks' examples, or ``all``; ``label``: its place in their meta; ``read``: last or first."""
    if method == "csreft":
        raise UserError(
            "expected a method whose edits are the same for every prompt below a head, got 'csreft'; use reft"
        )
    prepare_process(compute, seed)
    below = method_module(method, "Settings", "initial")
    chosen = below.Settings.parse(settings.adapter, f"recipes.{recipe}.adapter")
    with step("load the base model"):
        base = load_base(model, compute)
        found = read_tasks(examples, tasks.split(), sys.maxsize)  # a subset's are counted once they are known
        skills = Skills(
            found.names,
            labelled(found.examples, label, subset),
            labelled(found.held_out, label, subset)[: settings.training.validation_examples],
        )
        labels = sorted({example.target for example in skills.examples})
    with step(f"train the head and what is below it on {subset if subset != 'all' else tasks}"):
        inner = below.initial(base.model, chosen, torch.Generator().manual_seed(seed))
        trained = head.initial(inner, width_of(base.model), labels, read)
        reading = reader(base, trained.head, labels, trained.read)

        def validate(attachment: Attachment) -> float:
            given = predict(reading, attachment, skills.held_out, compute.batch_tokens)
            return metrics.of_labels(metric, given, [example.target for example in skills.held_out])

        rows = fit(
            reading,
            trained,
            skills,
            training=settings.training,
            compute=compute,
            seed=seed,
            checkpoints=checkpoints,
            validate=validate,
        )
    found_metrics = save(
        trained,
        rows,
        skills,
        method=method,
        seed=seed,
        model=model,
        path=adapter,
        curve=curve,
        parameters_without_head=sum(parameter.numel() for parameter in inner.parameters()),
        subset=subset,
    )
    return {**found_metrics, metric: next(row["measured"] for row in rows if row["chosen"])}


if __name__ == "__main__":
    main()
