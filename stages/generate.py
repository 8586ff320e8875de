"""Answer a task's test prompts, greedily, with one adapter attached: the expensive half of evaluation.

A task says how it is answered: its answers are written, or the likeliest of the choices that it offers is taken.
"""

from collections.abc import Callable, Sequence

from pipeline.core import processes
from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.progress import bar, show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import Completion, Example
from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.batch import Answer, Decoding
from pipeline.model.decoding.choose import choose
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
        adapted = Adapted(base, compute, attachment)
        places = attachment.rows([example.id for example in asked])
        parts = processes.parts(list(zip(asked, places, strict=True)), compute.units)
        group = processes.joined(len(parts))

        def texts(part: Sequence[tuple[Example, int]]) -> list[tuple[Sequence[int], bool]]:
            examples, places = [example for example, _ in part], [row for _, row in part]
            given = answered(adapted, examples, decoding, places, drawn.advance)
            return [(answer.ids, answer.finished) for answer in given]

        every = group.gathered(len(parts), {unit: texts(parts[unit]) for unit in group.own(len(parts))})
        answers = [Answer(tuple(ids), (), finished) for part in every for ids, finished in part]
    rows = [
        Completion(example.id, base.text(answer.ids), len(answer.ids), len(prompt), answer.finished)
        for example, prompt, answer in zip(asked, prompts, answers, strict=True)
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


def answered(
    adapted: Adapted, examples: Sequence[Example], decoding: Decoding, rows: Sequence[int], watch: Callable[[int], None]
) -> list[Answer]:
    """The greedy answer, or the likeliest choice, of each example. watch: is told how many have come in."""
    if decoding.choose_by is not None:
        return choose(adapted, examples, decoding.choose_by, rows=rows)
    prompts = [adapted.base.prompt_ids(example.messages) for example in examples]
    answers = generate(
        adapted, prompts, max_new_tokens=decoding.limit, rows=rows, repetition=decoding.repetition, watch=watch
    )
    return [answer for (answer,) in answers]


if __name__ == "__main__":
    main()
