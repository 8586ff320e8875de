"""Train a classification head, and the edits below it, on labelled prompts: GLUE, say.

The state is kept that does best on validation by the task's own metric, which is how GLUE is done; equals by loss.
"""

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import head
from pipeline.methods.common.edits import width_of
from pipeline.model.forward.adapters import Attachment, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.scoring import metrics
from pipeline.training import supervised
from pipeline.training.loop import Training
from pipeline.training.reading import predict, read_labelled, reader
from pipeline.training.skills import initial
from pipeline.training.variants import provenance


def run(
    *,
    row: str,
    method: str,
    subset: str,
    label: str,
    token: str,
    metric: str,
    seed: int,
    model: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    settings: supervised.Supervised,
    adapter: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """``subset``: of the examples, or ``all``; ``label``: its place in their meta; ``token``: read, last or first."""
    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        count = settings.training.validation_examples
        skills = read_labelled(train, validation, count, label=label, subset=subset)
    with step(f"train the head and what is below it on {', '.join(skills.names) if subset == 'all' else subset}"):
        inner = initial(base, method, settings.adapter, seed=seed)
        labels = sorted({example.target for example in skills.train})
        trained = head.initial(inner, width_of(base.model), labels, token)
        reading = reader(base, trained.head, labels, token)

        def measure(attachment: Attachment) -> float:
            given = predict(reading, attachment, skills.validation, compute.batch_tokens)
            return metrics.of_labels(metric, given, [example.target for example in skills.validation])

        training = Training(settings.training, seed, checkpoints)
        rows = supervised.train(reading, trained, skills, compute=compute, training=training, measure=measure)
    below = sum(parameter.numel() for parameter in inner.parameters())
    about = provenance(trained, method=method, seed=seed, model=model, tasks=list(skills.names), subset=subset)
    about["parameters_without_head"] = below
    measured = save_trained(trained, rows, path=adapter, curve=curve, provenance=about)
    return {**measured, metric: next(row["measured"] for row in rows if row["chosen"])}


if __name__ == "__main__":
    main()
