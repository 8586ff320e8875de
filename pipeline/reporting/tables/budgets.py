"""What everything was trained on, as a table."""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.budgets import ENOUGH, Budget
from pipeline.reporting.tables.listing import Listing

COLUMNS = (
    "adapter", "trained on", "objective", "steps", "prompts a step", "prompts seen", "distinct prompts",
    "samples a prompt", "tokens generated", "sum of learning rates", "step kept", "chosen among",
    "on validation prompts",
)  # fmt: skip
TIMED = ("adapter", "trained on", "objective", "prompts seen", "samples a prompt", "tokens generated", "seconds")
OBJECTIVES = {"reinforce": "rewards", "next_token": "reference answers"}


def budgets_table(known: Mapping[str, Budget], seconds: Mapping[str, Any] | None = None) -> Listing:
    """A line for each adapter. known: by its path. seconds: of the stages that ran, beside what they were spent on.

    Seconds differ between two equal runs, so a table without them is the same each time.
    """
    rows: list[tuple[str | int | float | None, ...]] = []
    for path, one in known.items():
        about = (path, ", ".join(one.tasks) or None, OBJECTIVES[one.objective])
        if seconds is not None:
            rows.append((*about, one.prompts, one.samples, one.tokens, seconds.get(one.stage)))
            continue
        numbers = (one.steps, one.batch, one.prompts, one.distinct, one.samples, one.tokens)
        rows.append((*about, *numbers, one.rates, one.kept, one.tried, one.validation))
    columns = COLUMNS if seconds is None else TIMED
    return Listing("budgets", "Budgets. What was trained on how much", columns, tuple(rows), note(known))


def note(known: Mapping[str, Budget]) -> str:
    """How to read it, and which choices were made on too few prompts."""
    text = (
        "Prompts seen are steps × prompts a step; a prompt may be seen again. An adapter is chosen among as many "
        "trainings (rates × clips × coefficients λ) by what they come to on validation prompts of each task."
    )
    thin = [f"{path} ({one.validation})" for path, one in known.items() if one.thin]
    if thin:
        text += f" Fewer than {ENOUGH} such prompts choose mostly by chance; so they did for {', '.join(thin)}."
    return text
