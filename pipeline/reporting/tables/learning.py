"""How often a training from rewards had something to learn from: a step without a right answer teaches nothing.

The curve says of each step which share of its answers was right; an older one has the mean reward alone, of 1 for a
right answer and −1 for a wrong one, which is −1 where none was right. All advantages are then zero: without a
divergence penalty the step changes nothing, with one it follows the penalty alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.reporting.budgets import Budget, kept_run
from pipeline.reporting.tables.listing import Listing

# What a training may measure of its steps, by the column of its curve.
SIGNALS = {
    "mixed": "prompts with mixed rewards, share",
    "cosine": "cosine of two halves' gradients",
    "entropy": "entropy, nats a token",
    "kl": "KL from the base, nats a token",
    "largest": "largest |z − 1|",
}
UNREWARDED = -1 + 1e-6  # mean reward of a step without a right answer, on older curves, with what rounding may add


class Learnt(NamedTuple):
    """What a training came to, under the coefficient λ of its divergence penalty that was chosen.

    steps, rewarded: how many steps there were, and in how many of them any sampled answer was rewarded.
    first, last: mean reward of the answers of the first and of the last step.
    chosen: step of the checkpoint. before, after: accuracy on validation prompts at step 0 and at ``chosen``.
    """

    coefficient: float
    steps: int
    rewarded: int
    first: float
    last: float
    chosen: int
    before: float
    after: float


def rewarded(curves: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The curves of trainings from rewards."""
    return {name: curve for name, curve in curves.items() if curve["objective"].iloc[0] == "reinforce"}


def learnt(curve: pd.DataFrame) -> Learnt:
    """What the curve of a training from rewards says."""
    end = curve[curve["chosen"].astype(bool)].iloc[0]
    kept = curve[curve["kl_coefficient"] == end["kl_coefficient"]]
    stepped = kept[kept["step"] > 0]
    rewards = stepped["train"].astype(float)
    right = stepped["right"] > 0 if "right" in stepped else rewards > UNREWARDED
    return Learnt(
        coefficient=float(end["kl_coefficient"]),
        steps=len(rewards),
        rewarded=int(right.sum()),
        first=float(rewards.iloc[0]),
        last=float(rewards.iloc[-1]),
        chosen=int(end["step"]),
        before=float(kept["validation"].iloc[0]),
        after=float(end["validation"]),
    )


def learning_claims(curves: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """A sentence for each training that had nothing to learn from in some of its steps."""
    sentences = []
    for name, curve in rewarded(curves).items():
        training = learnt(curve)
        if training.rewarded == training.steps:
            continue
        without = "changed nothing" if training.coefficient == 0 else "followed the divergence penalty alone"
        kept = "step 0, the base model as it is" if training.chosen == 0 else f"step {training.chosen}"
        sentences.append(
            f"{name} had a rewarded answer in {training.rewarded} of {training.steps} steps; the others had nothing to "
            f"learn from and {without}. Validation chose {kept}."
        )
    return tuple(sentences)


def measured(curve: pd.DataFrame) -> dict[str, pd.Series]:
    """What the steps of a training measured, by the columns of ``SIGNALS`` that its curve has, without gaps."""
    kept = kept_run(curve)
    stepped = kept[kept["step"] > 0].set_index("step")
    found = {name: stepped[name].dropna().astype(float) for name in SIGNALS if name in stepped}
    return {name: values for name, values in found.items() if len(values)}


def signal(curve: pd.DataFrame) -> tuple[float | None, ...]:
    """Means over the steps of ``mixed`` and ``cosine``, the last ``entropy`` and ``kl``, the greatest ``largest``."""
    found = measured(curve)
    come_to = {"mixed": "mean", "cosine": "mean", "entropy": "last", "kl": "last", "largest": "max"}
    numbers = {name: {"mean": of.mean(), "last": of.iloc[-1], "max": of.max()} for name, of in found.items()}
    return tuple(float(numbers[name][way]) if name in found else None for name, way in come_to.items())


def learning_table(curves: Mapping[str, pd.DataFrame], budgets: Mapping[str, Budget]) -> Listing:
    """All trainings from rewards, a line each. budgets: of the adapters that were trained, by path."""
    rates = {Path(path).name: budget.rates for path, budget in budgets.items()}
    columns = (
        "training", "λ", "steps", "with a rewarded answer", "mean reward, first step", "last step", "step chosen",
        "validation before", "after", "sum of rates", "prompts with mixed rewards, mean", "cosine, mean",
        "entropy, last", "KL, last", "largest |z − 1|",
    )  # fmt: skip
    rows = tuple((name, *learnt(curve), rates.get(name), *signal(curve)) for name, curve in rewarded(curves).items())
    note = (
        "An answer is rewarded with 1 if it is right; a step in which every answer is wrong teaches nothing, nor does "
        "a prompt whose answers are all rewarded alike. The cosine is between the gradients of two halves of a batch: "
        "near zero, a step follows noise. Under an optimizer that normalises each coordinate, z moves by about the sum "
        "of the learning rates at most. The step is chosen by accuracy on validation prompts; step 0 is the base model."
    )
    return Listing("learning", "What there was to learn from", columns, rows, note)
