"""Choose among a task's choices by their log-likelihood, with one adapter attached: nothing is generated or read off.

As in lm-evaluation-harness, the text of each choice is weighed as the whole answer to the prompt, and the likeliest is
chosen: by the sum of its tokens' log-probabilities (the harness's ``acc``), and by that sum per character of its text
(``acc_norm``), which does not favour short choices. **Deviations**: the prompt is the task's own, a chat that names the
choices, where the harness's ARC asks for a bare continuation of "Question: … Answer:".
"""

from typing import Any

from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.model.decoding.batch import Per
from pipeline.model.decoding.choose import continuations, lengths, likeliest
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Factors, load_adapter
from pipeline.model.forward.base import Adapted, Compute, load_base, prepare_process

MEASURES: dict[str, Per] = {"likeliest": "sum", "likeliest_per_character": "character"}


def run(*, model: In, factors: In, adapter: In, examples: In, compute: Compute, weighed: Out) -> dict[str, float]:
    """Write the log-likelihoods (nats) of every example's choices, and whether the likeliest is the right one."""
    prepare_process(compute)
    asked = read_examples(examples)
    if not all(example.choices for example in asked):
        raise UserError(
            f"expected choices in the meta of every example of {examples}, got none in some; weigh tasks that have some"
        )
    with step("load the base model and the adapter"):
        base = load_base(model, compute)
        loaded, _ = load_adapter(adapter)
    with (
        step(f"weigh the choices of {len(asked)} prompts"),
        loaded.attached(base.model, Factors(factors)) as attachment,
    ):
        choices = [continuations(base, example) for example in asked]
        weighed_choices = weigh(
            Adapted(base, compute, attachment),
            [base.prompt_ids(example.messages) for example in asked],
            choices,
            rows=attachment.rows([example.id for example in asked]),
        )
    rows: list[dict[str, Any]] = []
    for example, several, weights in zip(asked, choices, weighed_choices, strict=True):
        labels = list(example.choices)
        chosen = [labels[likeliest(weights, lengths(example, several, per))] for per in MEASURES.values()]
        right = dict(zip(MEASURES, (float(label == example.meta["answer"]) for label in chosen), strict=True))
        rows.append({"id": example.id, **right, "log_likelihoods": dict(zip(labels, weights, strict=True))})
    write_jsonl(weighed, rows)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in MEASURES}
    show_table("choices by log-likelihood", [means])
    return means


if __name__ == "__main__":
    main()
