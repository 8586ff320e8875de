"""Label test prompts by a trained head, and say how well, in GLUE's metric."""

from pipeline.core.artifacts import read_examples, write_json, write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.methods import head
from pipeline.model.forward.adapters import load_adapter
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.scoring import metrics
from pipeline.training.reading import labelled, predict, reader


def run(
    *,
    method: str,
    subset: str,
    label: str,
    metric: str,
    model: In,
    adapter: In,
    examples: list[In],
    compute: Compute,
    labels: Out,
    measured: Out,
) -> dict[str, float]:
    """``subset``: of the examples, or ``all``; ``label``: its place in their meta; ``method``: below the head."""
    prepare_process(compute)
    with step("load the base model and the head"):
        base = load_base(model, compute)
        trained, provenance = load_adapter(adapter)
        if not isinstance(trained, head.Headed):
            raise UserError(f"expected a classification head in {adapter}, got a {trained.kind}; train one")
        asked = labelled([example for path in examples for example in read_examples(path)], label, subset)
    with step(f"label {len(asked)} prompts"), trained.attached(base.model, None) as attachment:
        reading = reader(base, trained.head, trained.labels, trained.read)
        given = predict(reading, attachment, asked, compute.batch_tokens)
    expected = [example.target for example in asked]
    value = metrics.of_labels(metric, given, expected)
    said = {
        "method": method,
        "subset": subset,
        "metric": metric,
        "value": value,
        "accuracy": metrics.of_labels("accuracy", given, expected),
        "n": len(asked),
        **{key: provenance[key] for key in ("seed", "parameters", "parameters_without_head")},
    }
    write_jsonl(
        labels,
        (
            {"id": example.id, "label": example.target, "given": guess}
            for example, guess in zip(asked, given, strict=True)
        ),
    )
    write_json(measured, said)
    return {metric: value, "n": len(asked)}


if __name__ == "__main__":
    main()
