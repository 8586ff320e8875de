"""Accuracy by the kind of question, of tasks about pictures: what a model reads, and what it does not."""

from pipeline.reporting.papers import row_name
from pipeline.reporting.read import Run
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import percent

NOTE = "Accuracy in percent on the questions of a kind, over all seeds; n counts the questions."


def kinds_table(run: Run) -> Listing | None:
    """A line for each kind of question of each task, a column for each row; None where no pictures are asked about."""
    kinds = {
        (task, example.id): str(example.meta["kind"])
        for task, examples in run.examples.items()
        for example in examples
        if example.images and "kind" in example.meta
    }
    if not kinds:
        return None
    tasks = {task for task, _ in kinds}
    scores = run.scores[run.scores["task"].isin(tasks)]
    scores = scores.assign(kind=[kinds[task, id_] for task, id_ in zip(scores["task"], scores["id"], strict=True)])
    rows = list(dict.fromkeys(scores["row"]))
    lines = []
    for (task, kind), part in scores.groupby(["task", "kind"], sort=False):
        right = part.groupby("row")["correct"].mean()
        shares = [float(percent(right[row])) if row in right else None for row in rows]
        lines.append((str(task), str(kind), int(part["id"].nunique()), *shares))
    return Listing(
        "kinds",
        "Kinds. What is read, by the kind of question",
        ("task", "kind", "n", *map(row_name, rows)),
        tuple(lines),
        NOTE,
    )
