"""Score a cell's completions with its task's scorer. Rescoring generates nothing again.

A line says of a completion: value, correct, parsed (what was read, null for nothing), marked (whether that stood where
the task asked for it), tokens, prompt_tokens, and finished.

A scorer's further metrics stand in columns of their own, ``also.<name>``. Metrics that are no mean over examples
(F1, a correlation) are named in the column ``metrics``; what they are computed of stands in ``given`` and ``expected``.
"""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.artifacts import atomic, read_examples, read_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.reading import formed
from pipeline.core.stage import In, Out, main
from pipeline.core.types import Completion
from pipeline.data.tasks import task_module
from pipeline.scoring.metrics import summary

COLUMNS = {
    "id": pa.string(),
    "value": pa.float64(),
    "correct": pa.bool_(),
    "parsed": pa.string(),
    "marked": pa.bool_(),
    "tokens": pa.int64(),
    "prompt_tokens": pa.int64(),
    "finished": pa.bool_(),
}
SHOWN = 8  # completions shown beside the run


def run(*, task: str, examples: In, completions: In, scores: Out) -> dict[str, object]:
    """Write one line per example: its score, and the tokens of its completion."""
    prompts = read_examples(examples)
    with formed(completions, "completions"):
        answers = [Completion(**row) for row in read_jsonl(completions)]
    if [prompt.id for prompt in prompts] != [answer.id for answer in answers]:
        raise UserError(
            f"expected one completion for each of the {len(prompts)} examples of {examples}, in order, got "
            f"{len(answers)} others in {completions}; run the stage generate again"
        )
    with step(f"score {len(answers)} completions"):
        module = task_module(task)
        scored = module.score(prompts, [answer.text for answer in answers])
    columns, found = dict(COLUMNS), summary(scored)
    frame = pd.DataFrame(
        [
            {
                "id": score.id,
                "value": float(score.value),
                "correct": bool(score.correct),
                "parsed": score.parsed,
                "marked": bool(score.marked),
                "tokens": answer.tokens,
                "prompt_tokens": answer.prompt_tokens,
                "finished": answer.finished,
            }
            for score, answer in zip(scored, answers, strict=True)
        ],
        columns=list(COLUMNS),
    )
    for name in dict.fromkeys(name for score in scored for name in score.also):
        frame[f"also.{name}"] = [score.also.get(name) for score in scored]
        columns[f"also.{name}"] = pa.float64()
    if names := module.metrics(prompts) if hasattr(module, "metrics") else ():
        given, expected = module.pairs(prompts, scored)
        frame = frame.assign(metrics=" ".join(names), given=given, expected=expected)
        columns |= {"metrics": pa.string(), "given": pa.float64(), "expected": pa.float64()}
        found |= of_pairs(names, given, expected)
    with atomic(scores) as temporary:
        pq.write_table(pa.Table.from_pandas(frame, schema=pa.schema(columns), preserve_index=False), temporary)
    show_table(
        "completions",
        [
            {
                "prompt": prompt.messages[-1]["content"],
                "answer": answer.text,
                "read": score.parsed,
                "right": score.correct,
            }
            for prompt, answer, score in zip(prompts[:SHOWN], answers, scored, strict=False)
        ],
    )
    return {**found, "truncated": float(1 - frame["finished"].mean()), "tokens": int(frame["tokens"].sum())}


def of_pairs(names: Sequence[str], given: Sequence[float], expected: Sequence[float]) -> dict[str, float]:
    """Metrics of all answers at once."""
    import evaluate  # seconds to import, and most tasks have no such metric

    from pipeline.scoring.metrics.huggingface import Paired

    return evaluate.combine([Paired(name) for name in names]).compute(predictions=given, references=expected)


if __name__ == "__main__":
    main()
