"""Score a cell's completions with its task's scorer. Rescoring generates nothing again."""

import importlib

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.artifacts import atomic, read_jsonl
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import Completion, Example

COLUMNS = {
    "id": pa.string(),
    "value": pa.float64(),
    "correct": pa.bool_(),
    "parsed": pa.string(),
    "tokens": pa.int64(),
    "prompt_tokens": pa.int64(),
    "finished": pa.bool_(),
}
SHOWN = 8  # completions shown beside the run


def run(*, task: str, examples: In, completions: In, scores: Out) -> dict[str, object]:
    """Write one line per example: its score, and the tokens of its completion."""
    prompts = [Example(**row) for row in read_jsonl(examples)]
    answers = [Completion(**row) for row in read_jsonl(completions)]
    if [prompt.id for prompt in prompts] != [answer.id for answer in answers]:
        raise UserError(
            f"expected one completion for each of the {len(prompts)} examples of {examples}, in order, got "
            f"{len(answers)} others in {completions}; run the stage generate again"
        )
    with step(f"score {len(answers)} completions"):
        scorer = importlib.import_module(f"pipeline.tasks.{task}").score
        scored = scorer(prompts, [answer.text for answer in answers])
    frame = pd.DataFrame(
        [
            {
                "id": score.id,
                "value": float(score.value),
                "correct": bool(score.correct),
                "parsed": score.parsed,
                "tokens": answer.tokens,
                "prompt_tokens": answer.prompt_tokens,
                "finished": answer.finished,
            }
            for score, answer in zip(scored, answers, strict=True)
        ],
        columns=list(COLUMNS),
    )
    with atomic(scores) as temporary:
        pq.write_table(pa.Table.from_pandas(frame, schema=pa.schema(COLUMNS), preserve_index=False), temporary)
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
    return {
        "accuracy": float(frame["correct"].mean()),
        "unparsed": float(frame["parsed"].isna().mean()),
        "truncated": float(1 - frame["finished"].mean()),
        "tokens": int(frame["tokens"].sum()),
    }


if __name__ == "__main__":
    main()
