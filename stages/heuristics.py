"""Answer a task's test prompts by rules that need no model: what its scores are read beside."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.artifacts import atomic, read_examples
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.data.tasks import task_module
from pipeline.evaluation import heuristics

COLUMNS = {"rule": pa.string(), "id": pa.string(), "value": pa.float64(), "answer": pa.string()}


def run(*, task: str, train: In, test: In, rules: Out) -> dict[str, float]:
    """Write a line for each rule and example; returns the accuracy of each rule."""
    module = task_module(task)
    own = getattr(module, "HEURISTICS", {})
    with step(f"answer {task} by rules"):
        applied = heuristics.applied(read_examples(train), read_examples(test), module.score, own)
    frame = pd.DataFrame([vars(each) for each in applied], columns=list(COLUMNS))
    with atomic(rules) as temporary:
        pq.write_table(pa.Table.from_pandas(frame, schema=pa.schema(COLUMNS), preserve_index=False), temporary)
    accuracies = {str(rule): float(value) for rule, value in frame.groupby("rule", sort=False)["value"].mean().items()}
    show_table("rules", [{"rule": rule, "right": value} for rule, value in accuracies.items()])
    return accuracies


if __name__ == "__main__":
    main()
