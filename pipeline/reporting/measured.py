"""The report's numbers, before anything is shown: what statistics say of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipeline.evaluation.intervals import Estimate
from pipeline.reporting.budgets import Budget
from pipeline.reporting.claims import Judged

ESTIMATES = ("mean", "low", "high", "n", "seeds", "unparsed", "truncated", "tokens")
DIFFERENCES = ("diff", "diff_low", "diff_high")
READ = ("read_diff", "read_low", "read_high", "read_n")  # the same, on the answers that were read and finished
RULES = ("rule_mean", "rule_diff", "rule_low", "rule_high")  # the best rule without a model, and the row less it
SIGNIFICANT = 0.05  # of an adjusted p: what an interval of 95 % is for one difference


@dataclass(frozen=True)
class Statistics:
    """What ``pipeline.evaluation`` says of a run. Any of it may be empty.

    comparisons: table to its rows against the base model. claims: what is said of each of the papers' claims.
    dispatch: the dispatchers against the prompt.
    rules: of each task, every rule that needs no model with its accuracy, the best one first.
    answers: what the answers of each cell are like, as ``pipeline.evaluation.answers`` returns it.
    budgets: what each adapter was trained on, by its path.
    further: metrics beside accuracy, against the base model.
    win_rates: of cells, by judges. heads: what the classification heads are. head_metrics: how well they label.
    """

    comparisons: Mapping[str, pd.DataFrame]
    dispatch: pd.DataFrame
    rules: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    further: pd.DataFrame = field(default_factory=pd.DataFrame)
    win_rates: Sequence[Mapping[str, Any]] = ()
    heads: Sequence[Mapping[str, Any]] = ()
    head_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    claims: Sequence[Judged] = ()
