"""When a difference may be called better, worse or undecided, and when no verdict is given at all.

A verdict is read off the interval of a difference. It is withheld, with a reason in words, where the numbers do not
say what a reader would take them to say:

    not trained         validation kept the adapter of step 0, for every seed: nothing was learnt that could be compared
    not interpretable   more than a tenth of the answers of either side were cut at the token limit, or could not be
                        read: the numbers are about the form of answers; or the row would be better while a rule that
                        needs no model is not shown to be worse than it on the same examples
"""

from collections.abc import Sequence
from dataclasses import dataclass

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
NOT_TRAINED, NOT_INTERPRETABLE = "not trained", "not interpretable"
VERDICTS = (BETTER, WORSE, UNDECIDED, NOT_TRAINED, NOT_INTERPRETABLE)
LOST = 0.1  # the share of answers that may be cut or unread before their accuracy says little


@dataclass(frozen=True)
class Side:
    """One of the two that are compared. who: the other's name; empty for the row itself.

    untrained: whether validation kept step 0 for every seed.
    losses: task to its shares of answers that were cut, that could not be read, and that were either.
    """

    who: str
    untrained: bool
    losses: dict[str, tuple[float, float, float]]

    @property
    def untold(self) -> str:
        """Why its accuracy says little; empty where it does not."""
        task = max(self.losses, key=lambda one: self.losses[one][2])
        cut, unread, either = self.losses[task]
        if either <= LOST:
            return ""
        whose = f"of the answers of '{self.who}'" if self.who else "of its answers"
        where = f" on {task.replace('_', ' ')}" if len(self.losses) > 1 else ""
        parts = [f"{share(cut)} cut at the token limit"] if cut else []
        parts += [f"{share(unread)} not readable"] if unread else []
        return f"{whose}{where}, {' and '.join(parts)}"


@dataclass(frozen=True)
class Beside:
    """A row beside the best rule without a model. mean: the rule's accuracy. low: of the interval of row − rule."""

    name: str
    mean: float
    low: float


def judged(word: str, own: Side, other: Side, rule: Beside | None) -> tuple[str, str]:
    """The verdict that is given, and why it is withheld (empty where it is not).

    word: what the interval alone says. rule: None where the task has none.
    """
    if own.untrained:
        return NOT_TRAINED, "validation chose step 0, so its adapter is as it began"
    if other.untrained:
        return NOT_TRAINED, f"validation chose step 0 for '{other.who}', which it is compared with"
    if reasons := [side.untold for side in (own, other) if side.untold]:
        return NOT_INTERPRETABLE, "; ".join(reasons)
    if word == BETTER and rule is not None and rule.low <= 0:
        right = f"{100 * rule.mean:.1f} %"
        return NOT_INTERPRETABLE, f"the rule '{rule.name}' is right for {right}, and it is not shown to do better"
    return word, ""


def counts(verdicts: Sequence[str]) -> dict[str, int]:
    """How often each verdict was given."""
    return {word: sum(one == word for one in verdicts) for word in VERDICTS}


def share(fraction: float) -> str:
    """A share in whole percent."""
    return f"{100 * fraction:.0f} %"
