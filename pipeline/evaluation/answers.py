"""What a cell's answers are like: cut, unread, unmarked; and of choices, which position is picked.

A model that cannot answer often has a habit instead: it names the second choice whatever is asked. Accuracy does not
show that. What shows it is how often each position is picked beside how often it is right, and the accuracy within
the prompts of which each position is the right one.

Positions count from 1, in the order in which the prompt mentions its choices.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.core.types import Example

OFTEN, SELDOM = 0.6, 0.4  # one position is a habit if it is picked more often than this, and right less often than that


def with_positions(scores: pd.DataFrame, examples: Mapping[str, Sequence[Example]]) -> pd.DataFrame:
    """Scores with the columns ``right`` and ``picked``: the position of the right choice, and of the one that was read.

    examples: of each task. The score's column ``answer`` is the text that was read. A position is missing where the
    prompt offers no choices, or none of them was read.
    """
    right, places = {}, {}
    for task, asked in examples.items():
        for example in asked:
            choices = example.choices
            if example.meta.get("answer") in choices:
                right[task, example.id] = list(choices).index(example.meta["answer"]) + 1
                places[task, example.id] = positions(choices)
    keys = list(zip(scores["task"], scores["id"], strict=True))
    picked = [places.get(key, {}).get(answer) for key, answer in zip(keys, scores["answer"], strict=True)]
    return scores.assign(
        right=pd.array([right.get(key) for key in keys], dtype="Int64"), picked=pd.array(picked, dtype="Int64")
    )


def positions(choices: Mapping[str, str]) -> dict[str, int]:
    """What may have been read, a choice's text or its label, to the choice's position; texts go before labels."""
    by_label = {label: place for place, label in enumerate(choices, start=1)}
    return by_label | {text: place for place, text in reversed(list(enumerate(choices.values(), start=1))) if text}


def answers(scores: pd.DataFrame) -> pd.DataFrame:
    """A line for each cell: what its answers are like.

    scores: as ``pipeline.evaluation.intervals`` takes them, with ``marked`` and the columns of ``with_positions``.
    Returns cell, row, task, seed, n; cut, unread and unmarked (shares); accuracy, and read_accuracy, the accuracy of
    those read_n answers that were read and finished; tokens (mean); picked, right and within (by position: the share of
    prompts in which it is picked, the share in which it is right, and the accuracy in the latter; empty without
    choices). unmarked counts answers that were read, but did not stand where the task asks for the answer.
    """
    lines = []
    for cell, group in scores.groupby("cell", sort=False):
        read = group[group["parsed"] & group["finished"]]
        lines.append(
            {
                "cell": str(cell),
                **{name: group[name].iloc[0] for name in ("row", "task", "seed")},
                "n": len(group),
                "cut": float(1 - group["finished"].mean()),
                "unread": float(1 - group["parsed"].mean()),
                "unmarked": float((group["parsed"] & ~group["marked"]).mean()),
                "accuracy": float(group["correct"].mean()),
                "read_accuracy": float(read["correct"].mean()) if len(read) else None,
                "read_n": len(read),
                "tokens": float(group["tokens"].mean()),
                **by_position(group[group["right"].notna()]),
            }
        )
    return pd.DataFrame(lines)


def by_position(offered: pd.DataFrame) -> dict[str, tuple[float | None, ...]]:
    """picked, right and within, see ``answers``. offered: the scores of a cell whose prompts offer choices."""
    places = range(1, int(offered["right"].max()) + 1) if len(offered) else range(0)
    parts = [offered[offered["right"] == place] for place in places]
    return {
        "picked": tuple(float((offered["picked"] == place).fillna(False).mean()) for place in places),
        "right": tuple(len(part) / len(offered) for part in parts),
        "within": tuple(float(part["correct"].mean()) if len(part) else None for part in parts),
    }


def habits(lines: pd.DataFrame) -> list[tuple[str, int, float, float]]:
    """The cells that pick one position by habit: cell, position, the share picked, and the share right there."""
    return [
        (line["cell"], place, picked, right)
        for line in lines.to_dict("records")
        for place, (picked, right) in enumerate(zip(line["picked"], line["right"], strict=True), start=1)
        if picked > OFTEN and right < SELDOM
    ]
