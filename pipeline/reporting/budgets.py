"""What each adapter was trained on: steps, prompts, samples and tokens, and how its settings were chosen.

Rows of a table can be compared only where they saw as many prompts in as many steps; a table says so where they did
not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.reporting.planned import TRAINED, Training
from pipeline.reporting.read import Run
from pipeline.reporting.wording import cell_text
from pipeline.training.recipes import Objective

ENOUGH = 200  # validation prompts, below which a choice among settings is mostly noise: a standard error of 3.5 points


@dataclass(frozen=True)
class Budget:
    """What one adapter was trained on.

    stage: that made it.
    objective: what it was trained for.
    tasks: what it was trained on.
    steps: how many there were, of those that were planned.
    batch: prompts of a step.
    distinct: different prompts there were for it, or at most where they were screened; None where that is not known.
    samples: answers sampled to each prompt; None where it learnt from reference answers, or from all choices at once.
    tokens: generated in training; None where the curve does not say.
    screened: prompts that were asked before, to keep those that teach; None where all were kept.
    tried: trainings that it was chosen among (rates × clips × coefficients λ).
    validation: prompts of each task that it was chosen on.
    kept: the step of the adapter.
    rates: the sum of the learning rates of its steps.
    temperatures: of the policy that was sampled and of the one whose gradient was taken, where they are two.
    """

    stage: str
    objective: Objective
    tasks: tuple[str, ...]
    steps: int
    batch: int
    distinct: int | None
    samples: int | None
    tokens: int | None
    screened: int | None
    tried: int
    validation: int | None
    kept: int | None
    rates: float | None
    temperatures: tuple[float, float] | None = None

    @property
    def prompts(self) -> int:
        """Prompts seen, as often as they were."""
        return self.steps * self.batch

    @property
    def answers(self) -> int | None:
        """Answers sampled in training."""
        return None if self.samples is None else self.prompts * self.samples

    @property
    def thin(self) -> bool:
        """Whether it was chosen among several on too few prompts."""
        prompts = None if self.validation is None else self.validation * max(1, len(self.tasks))
        return self.tried > 1 and prompts is not None and prompts < ENOUGH

    @property
    def size(self) -> tuple[int, int]:
        """What has to be equal for two rows to be comparable."""
        return self.steps, self.batch

    @property
    def text(self) -> str:
        """The budget in words, but for its tokens."""
        words = f"{self.steps} steps × {self.batch} prompts = {cell_text(self.prompts)} prompts seen"
        most = "" if self.screened is None else "at most "
        words += "" if self.distinct is None else f", {most}{cell_text(self.distinct)} distinct"
        words += "" if self.screened is None else f", kept of {cell_text(self.screened)} that were screened"
        return words + (
            "" if self.answers is None else f"; {self.samples} samples each, {cell_text(self.answers)} answers"
        )


def budgets(run: Run) -> dict[str, Budget]:
    """The budget of every adapter that was trained, by its path; those whose settings do not say it are left out."""
    makers = {
        item.adapter: f"{section}@{key}" for section in TRAINED for key, item in getattr(run.plan, section).items()
    }
    found = {
        item.adapter: budget(run, objective, item, makers[item.adapter]) for objective, item in run.plan.all_trainings
    }
    return {path: one for path, one in found.items() if one is not None}


def budget(run: Run, objective: Objective, item: Training, stage: str) -> Budget | None:
    """The budget of one training; None where its settings do not say how many prompts it sees."""
    recipe = run.settings.recipe(item.row, item.method, objective)
    training = recipe["training"]
    if not {"steps", "batch"} <= set(training):
        return None
    whole = run.curves.get(Path(item.adapter).name)
    curve = None if whole is None else kept_run(whole)
    steps = training["steps"] if curve is None else int(curve["step"].max())
    shots: Any = recipe.get("shots")
    known = [shots if shots else run.trained_on.get(task) for task in item.tasks]
    there = None if None in known or not known else sum(count for count in known if count is not None)
    screened = (training.get("screen") or {}).get("prompts") if objective == "reinforce" else None
    if there is not None and screened is not None:
        there = min(there, screened)
    sampled = objective == "reinforce" and not chooses(run, item)
    samples = training.get("samples") if sampled else None
    each = training["batch"] * (samples or 1)
    return Budget(
        stage=stage,
        objective=objective,
        tasks=item.tasks,
        steps=steps,
        batch=training["batch"],
        distinct=None if there is None else min(there, steps * training["batch"]),
        samples=samples,
        tokens=generated(curve, each) if sampled else None,
        screened=screened,
        tried=tried(recipe, objective),
        validation=shots or training.get("validation_examples"),
        kept=None if curve is None else chosen_step(curve),
        rates=sum_of_rates(training, steps, rate_of(curve, training)),
        temperatures=apart(training) if sampled else None,
    )


def apart(training: Mapping[str, Any]) -> tuple[float, float] | None:
    """The temperatures of sampling and of the gradient, where the settings have them differ."""
    drawn, learnt = training.get("temperature"), training.get("gradient_temperature")
    return None if drawn is None or learnt is None or drawn == learnt else (drawn, learnt)


def chooses(run: Run, item: Training) -> bool:
    """Whether the task of a training is answered by choosing, so that nothing is sampled."""
    return bool((run.settings.tasks.get(item.task, {}).get("decoding") or {}).get("choose_by"))


def kept_run(curve: pd.DataFrame) -> pd.DataFrame:
    """The rows of a curve under the coefficient λ that was chosen; all of them where none was tried."""
    if "kl_coefficient" not in curve or not curve["chosen"].any():
        return curve
    chosen = curve.loc[curve["chosen"].astype(bool), "kl_coefficient"].iloc[0]
    return curve[curve["kl_coefficient"] == chosen]


def chosen_step(curve: pd.DataFrame) -> int | None:
    """The step whose adapter was kept; None where the curve does not say."""
    chosen = curve.loc[curve["chosen"].astype(bool), "step"]
    return int(chosen.iloc[0]) if len(chosen) else None


def generated(curve: pd.DataFrame | None, each: int) -> int | None:
    """Tokens of all sampled answers. each: answers of a step, whose mean length the curve has as ``tokens``."""
    if curve is None or "tokens" not in curve:
        return None
    return round(float(curve["tokens"].fillna(0).sum()) * each)


def tried(recipe: Mapping[str, Any], objective: Objective) -> int:
    """How many trainings one was chosen among."""
    sweep = recipe.get("sweep") or {}
    count = len(sweep.get("learning_rates", (0,))) * len(sweep.get("clips", (0,)))
    return count * (len(recipe["training"].get("kl_coefficients", (0,))) if objective == "reinforce" else 1)


def rate_of(curve: pd.DataFrame | None, training: Mapping[str, Any]) -> float | None:
    """The learning rate that was trained with: of a sweep, the one that was kept."""
    if curve is not None and "learning_rate" in curve:
        return float(curve["learning_rate"].iloc[0])
    return training.get("learning_rate")


def sum_of_rates(training: Mapping[str, Any], steps: int, rate: float | None) -> float | None:
    """The learning rates of all steps added up, by the schedule of ``pipeline.training.loop.learning_rate``.

    Under an optimizer that normalises each coordinate (AdamW), no parameter moves further than about this.
    None where the settings do not have a rate and a schedule.
    """
    if rate is None or not {"schedule", "warmup"} <= set(training):
        return None
    warm = round(training["warmup"] * training["steps"])
    total = 0.0
    for step in range(1, steps + 1):
        done = (step - 1 - warm) / max(1, training["steps"] - warm)
        left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        total += step / warm if step <= warm else left[training["schedule"]]
    return rate * total


# ---- of a table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trainings:
    """The budgets of a table's rows that were trained, by row; of each adapter one."""

    rows: Mapping[str, Sequence[Budget]]

    def texts(self, row: str) -> list[str]:
        """The budgets of a row in words: one, unless its trainings differ in more than the tokens they generated."""
        tokens: dict[str, list[int]] = {}
        for one in self.rows.get(row, ()):
            tokens.setdefault(one.text, []).extend([] if one.tokens is None else [one.tokens])
        return [text + (f", {between(counts)} tokens" if counts else "") for text, counts in tokens.items()]

    def size(self, row: str) -> tuple[tuple[int, int], ...]:
        """Steps and batches of a row; empty for one that was not trained itself."""
        return tuple(sorted({one.size for one in self.rows.get(row, ())}))

    def ordered(self, rows: Sequence[str]) -> list[str]:
        """The rows, those of one budget together, in the order of the first of each."""
        sizes = list(dict.fromkeys(self.size(row) for row in rows))
        sizes.sort(key=lambda size: size != ())  # what was not trained itself comes first
        return sorted(rows, key=lambda row: sizes.index(self.size(row)))

    @property
    def differ(self) -> bool:
        """Whether the rows were trained on different budgets."""
        return len({self.size(row) for row in self.rows}) > 1

    def sentences(self, labels: Mapping[str, str]) -> list[str]:
        """On budgets that differ, and on choices made on too few prompts. labels: what the rows are called."""
        said = []
        if self.differ:
            each = [
                f"{labels[row]}: {' and '.join(f'{steps} × {batch}' for steps, batch in self.size(row))}"
                for row in self.rows
            ]
            said.append(
                "These rows were trained on different budgets, in steps × prompts, and stand grouped by them; a row "
                f"may be behind another only for that: {'; '.join(each)}."
            )
        for row, trained in self.rows.items():
            choices = dict.fromkeys((one.tried, one.validation, one.thin) for one in trained if one.tried > 1)
            for count, validation, thin in choices:
                warning = f", fewer than {ENOUGH}: mostly by chance" if thin else ""
                said.append(
                    f"{labels[row]} was chosen among {count} trainings on {validation} validation prompts{warning}."
                )
            for drawn, learnt in dict.fromkeys(one.temperatures for one in trained if one.temperatures):
                said.append(
                    f"{labels[row]} was sampled at temperature {drawn:g} and took the gradient at {learnt:g}: of "
                    "another policy than the one that answered."
                )
        return said


def between(counts: Sequence[int]) -> str:
    """A number, or the least and the greatest of several."""
    least, greatest = cell_text(min(counts)), cell_text(max(counts))
    return least if least == greatest else f"{least} to {greatest}"


def trainings_of(run: Run, table: str, known: Mapping[str, Budget]) -> Trainings:
    """The budgets of a table's rows. known: of ``budgets``."""
    rows: dict[str, list[Budget]] = {}
    for cell in run.plan.cells_of(table).values():
        if one := known.get(cell.adapter):
            rows.setdefault(cell.row, []).append(one)
    return Trainings(rows)
