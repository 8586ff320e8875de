"""What is known of a run by statistics: the report's numbers, before anything is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

ESTIMATES = ("mean", "low", "high", "n", "seeds", "unparsed", "truncated", "tokens")
DIFFERENCES = ("diff", "diff_low", "diff_high")
SIGNIFICANT = 0.05  # of an adjusted p: what an interval of 95 % is for one difference


@dataclass(frozen=True)
class Statistics:
    """What ``pipeline.evaluation.intervals`` says of a run.

    comparisons: table to its rows against the base model; rivals: table to its rows against the row its claim is
    about; versus: table to each row that claims given as data compare with, and the table against it.
    dispatch: the dispatchers against the prompt. baselines: task to what needs no model. further: metrics beside
    accuracy, against the base model; win_rates: judges' of cells; heads: what classification heads were, and
    head_metrics, how well they label. All may be empty. subsets: table to the baselines of its columns, where those
    are the subsets of one task.
    """

    comparisons: Mapping[str, pd.DataFrame]
    rivals: Mapping[str, pd.DataFrame]
    versus: Mapping[str, Mapping[str, pd.DataFrame]]
    dispatch: pd.DataFrame
    baselines: Mapping[str, Mapping[str, float]]
    further: pd.DataFrame = field(default_factory=pd.DataFrame)
    win_rates: Sequence[Mapping[str, Any]] = ()
    heads: Sequence[Mapping[str, Any]] = ()
    head_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    subsets: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
