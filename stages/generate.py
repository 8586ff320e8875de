"""Answer a task's test prompts, greedily, with one adapter attached: the expensive half of evaluation."""

from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.progress import bar, show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import Completion
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import Factors, load_adapter
from pipeline.model.forward.base import Adapted, Compute, load_base, prepare_process


def run(
    *,
    task: str,
    model: In,
    factors: In,
    adapter: In,
    examples: In,
    compute: Compute,
    decoding: Decoding,
    completions: Out,
) -> dict[str, float]:
    prepare_process(compute)
    with step("load the base model and the adapter"):
        base = load_base(model, compute)
        loaded, provenance = load_adapter(adapter)
        asked = read_examples(examples)
        prompts = [base.prompt_ids(example.messages) for example in asked]
    with (
        step(f"answer {len(asked)} prompts of {task}"),
        loaded.attached(base.model, Factors(factors)) as attachment,
        bar("prompts", len(asked)) as drawn,
    ):
        answers = generate(
            Adapted(base, compute, attachment),
            prompts,
            max_new_tokens=decoding.max_new_tokens,
            rows=attachment.rows([example.id for example in asked]),
            repetition=decoding.repetition,
            watch=drawn.advance,
        )
    rows = [
        Completion(example.id, base.text(answer.ids), len(answer.ids), len(prompt), answer.finished)
        for example, prompt, (answer,) in zip(asked, prompts, answers, strict=True)
    ]
    write_jsonl(completions, (vars(row) for row in rows))
    show_table(
        "samples",
        [
            {"prompt": example.messages[-1]["content"], "completion": row.text, "reference": example.target}
            for example, row in zip(asked[:5], rows[:5], strict=True)
        ],
    )
    return {
        "method": provenance["method"],
        "prompts": len(rows),
        "tokens": sum(row.tokens for row in rows),
        "finished": sum(row.finished for row in rows) / len(rows),
    }


if __name__ == "__main__":
    main()
