"""Rules that answer without a model, which a trained model has to beat: the commonest answer, a position, chance.

What a rule is right for on the test examples comes as a long frame with the columns ``rule`` (its name in plain words),
``id`` (of the example) and ``value`` (in [0, 1]: right or not; of chance, one over the number of choices).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.errors import UserError


@dataclass(frozen=True)
class Rule:
    """The best rule of a task. name: in plain words. values: example to how right it is. among: how many rules."""

    name: str
    values: pd.Series
    among: int

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    def on(self, ids: pd.Index) -> np.ndarray:
        """How right it is on some examples, (n,). Raises UserError where it was not asked one of them."""
        if missing := sorted(set(ids) - set(self.values.index)):
            raise UserError(
                f"expected the rule '{self.name}' on the same examples as the scores, but it has none of "
                f"'{missing[0]}'; run the stage heuristics again"
            )
        return self.values.reindex(ids).to_numpy(dtype=float)


def best_rule(scored: pd.DataFrame) -> Rule:
    """The rule with the highest mean of those that have a value for every example; the first by name of equals.

    It is chosen on the very examples that it is reported on, in favour of the rules.
    """
    covered = scored.groupby("rule")["id"].nunique()
    scored = scored[scored["rule"].isin(covered.index[covered == scored["id"].nunique()])]
    means = scored.groupby("rule")["value"].mean().sort_index()
    name = str(means.index[int(means.to_numpy().argmax())])
    values = scored[scored["rule"] == name].set_index("id")["value"].astype(float)
    return Rule(name, values, len(means))


def best_rules(scored: Mapping[str, pd.DataFrame]) -> dict[str, Rule]:
    """The best rule of each task that has any."""
    return {task: best_rule(frame) for task, frame in scored.items() if len(frame)}
