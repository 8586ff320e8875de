"""The report's numbers, before anything is shown: what statistics say of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipeline.reporting.claims import Judged

ESTIMATES = ("mean", "low", "high", "n", "seeds", "unparsed", "truncated", "tokens")
DIFFERENCES = ("diff", "diff_low", "diff_high")
SIGNIFICANT = 0.05  # of an adjusted p: what an interval of 95 % is for one difference


@dataclass(frozen=True)
class Statistics:
    """What ``pipeline.evaluation`` says of a run. Any of it may be empty.

    comparisons: table to its rows against the base model. claims: what is said of each of the papers' claims.
    dispatch: the dispatchers against the prompt.
    baselines: task to the accuracies that need no model. subsets: the same of the columns of a table whose columns are
    the subsets of one task, by table.
    further: metrics beside accuracy, against the base model.
    win_rates: of cells, by judges. heads: what the classification heads are. head_metrics: how well they label.
    """

    comparisons: Mapping[str, pd.DataFrame]
    dispatch: pd.DataFrame
    baselines: Mapping[str, Mapping[str, float]]
    further: pd.DataFrame = field(default_factory=pd.DataFrame)
    win_rates: Sequence[Mapping[str, Any]] = ()
    heads: Sequence[Mapping[str, Any]] = ()
    head_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    subsets: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    claims: Sequence[Judged] = ()
