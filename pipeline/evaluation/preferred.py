"""Which of two methods' answers to the same instructions a judge likes better, through its preferences to a third's.

A judge's preference is 1 where it likes the reference's answer better, 2 where it likes the method's, and 1.5 for a
draw (``pipeline.evaluation.judges``). The difference of two methods' win rates is paired over the instructions that
were judged for both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.evaluation.intervals import Resampling, estimate, paired
from pipeline.evaluation.joint import Effect

CHANCE = 0.5  # how often a judge that knows nothing agrees with another


def best_judge(judged: Sequence[Mapping[str, Any]], resampling: Resampling) -> tuple[str, Effect] | None:
    """The judge that agrees most often with GPT-4, and how often that is; None where nothing was judged.

    judged: what the stage ``judge`` wrote, each with its ``judge`` and ``agreed``.
    """
    names = dict.fromkeys(str(one["judge"]) for one in judged)
    known = {name: next(one["agreed"] for one in judged if one["judge"] == name) for name in names}
    agreements = {
        name: Effect(*estimate([pd.Series(agreed, dtype=float).to_numpy()], resampling))
        for name, agreed in known.items()
    }
    return max(agreements.items(), key=lambda one: one[1].mean, default=None)


def preferred(
    first: Sequence[Sequence[float | None]], second: Sequence[Sequence[float | None]], resampling: Resampling
) -> Effect | None:
    """The first method's win rate less the second's; None where no instruction was judged for both.

    first, second: for each seed the preferences, in the order of the instructions.
    """
    frames = [pd.DataFrame(list(zip(*seeds, strict=True)), dtype=float).dropna() for seeds in (first, second)]
    both = frames[0].index.intersection(frames[1].index)
    if both.empty:
        return None
    return Effect(*estimate([paired(frames[0].loc[both], frames[1].loc[both], "the judged answers")], resampling))
