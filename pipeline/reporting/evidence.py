"""The evidence for a claim, out of a run's numbers: what each pair of rows came to, on each task.

Most claims compare rows of a table of accuracies (``compared``). The others are about what ``SOURCES`` names: heads,
win rates, parameters, learning curves, the mixtures that searches found, singular values, seconds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.intervals import MEAN_OVER_TASKS, Resampling, chosen_cells, paired, per_example
from pipeline.evaluation.joint import Effect, difference_of_shares, independent, joint, share
from pipeline.evaluation.preferred import CHANCE, best_judge, preferred
from pipeline.evaluation.verdicts import BETTER, NOT_INTERPRETABLE, NOT_TRAINED, WORSE
from pipeline.reporting.claims import BASE, NOT_MEASURED, WITHHELD, Claim, Judged, Line, Pair, join, word_of
from pipeline.reporting.read import Run
from pipeline.reporting.tables.heads import REFERENCE
from pipeline.reporting.tables.learning import learnt, rewarded
from pipeline.reporting.wording import percent

MEAN = "mean over tasks"
ALPACA_EVAL, GLUE = "alpaca_eval", "glue"
# What rows are compared with where it is no row.
SECOND_PASS, START = "second pass", "start"
PROMPTS = "validation_examples"  # the setting that says on how many prompts a step is chosen


@dataclass(frozen=True)
class Measured:
    """What a run's claims are judged by.

    tables: of each table the scores that fill it; the first passes' decisions are the table ``dispatch``. versus: of
    each table, by the row that others are compared with, their lines against it, as
    ``pipeline.evaluation.intervals.compare`` returns them.
    heads, head_metrics: see ``pipeline.reporting.measured.Statistics``. judged: of ``tables.further.read_judged``.
    seconds: of each stage, where they are kept. prompts: task to the number of its test prompts.
    """

    run: Run
    resampling: Resampling
    tables: Mapping[str, pd.DataFrame]
    versus: Mapping[str, Mapping[str, pd.DataFrame]]
    heads: Sequence[Mapping[str, Any]] = ()
    head_metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    judged: Sequence[Mapping[str, Any]] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    prompts: Mapping[str, int] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, list[str]]:
        """The tasks that are trained on, and those that are not."""
        return {role: self.run.settings.tasks_of(role) for role in ("trained", "unseen")}


Evidence = tuple[list[Line], Effect | None]


def judge(claims: Iterable[Claim], measured: Measured) -> tuple[Judged, ...]:
    """What a run says of each claim."""
    return tuple(_judge(claim, measured) for claim in claims)


def _judge(claim: Claim, measured: Measured) -> Judged:
    """By the first of the claim's tables that has lines for it."""
    for table in claim.table:
        lines, effect = SOURCES[table](claim, measured) if table in SOURCES else compared(claim, table, measured)
        if lines:
            return Judged(claim, join(claim.rule, lines), table, tuple(lines), effect)
    return Judged(claim, NOT_MEASURED, reason=claim.unmeasured or WITHOUT.get(claim.table[0], ""))


# ---- tables of accuracies --------------------------------------------------------------------------------------------


def compared(claim: Claim, table: str, measured: Measured) -> Evidence:
    """Rows of a table against each other, example by example."""
    scores = measured.tables.get(table)
    if scores is None:
        return [], None
    tasks = claim.tasks_of(measured.groups, dict.fromkeys(scores["task"]))
    differences = Differences(scores)
    lines: list[Line] = []
    for pair in claim.among(scores["row"]):
        row, reference = pair.measured
        frame = measured.versus[table][reference]
        own = table_lines(frame, row, tasks, pair, claim.margin)
        for line in own:
            differences.add(pair, line.task)
        if claim.rule == "mean" and own:
            whole = table_lines(frame, row, [MEAN_OVER_TASKS], pair, claim.margin)
            if whole and {line.task for line in own} == set(frame["task"]) - {MEAN_OVER_TASKS}:
                own = [replace(whole[0], task=MEAN)]  # as the table has it
            else:
                arrays = [[differences.known[line.task][-1]] for line in sorted(own, key=lambda line: line.task)]
                own = [on_mean(own, Effect(*joint(arrays, measured.resampling)), claim.margin)]
        lines += own
    if len(lines) < 2 or claim.rule == "some":  # of some, the one that speaks for the claim most
        return lines, max((line.effect for line in lines), key=lambda effect: effect.low or 0.0, default=None)
    return lines, Effect(*joint([pairs for _, pairs in sorted(differences.known.items())], measured.resampling))


def table_lines(frame: pd.DataFrame, row: str, tasks: Sequence[str], pair: Pair, margin: float) -> list[Line]:
    """A row's lines on some tasks, turned into the direction of the claim. frame: of ``intervals.compare``."""
    lines = []
    for line in frame[(frame["row"] == row) & frame["task"].isin(tasks) & frame["diff"].notna()].to_dict("records"):
        effect = Effect(line["diff"], line["diff_low"], line["diff_high"], int(line["n"]))
        if pair.turned:
            effect = Effect(-line["diff"], -line["diff_high"], -line["diff_low"], int(line["n"]))
        withheld = line["verdict"] in WITHHELD
        word = line["verdict"] if withheld else word_of(effect, margin)
        reason = str(line.get("reason") or "") if withheld else ""
        reason = f"of '{row}': {reason}" if pair.turned and reason else reason
        lines.append(Line(pair, line["task"], effect, word, int(line["seeds"]), reason, line.get("p")))
    return lines


def on_mean(lines: Sequence[Line], effect: Effect, margin: float) -> Line:
    """The line of a pair on the mean over tasks. It is not interpretable if one of its tasks is not."""
    first, words = lines[0], {line.word for line in lines}
    seeds = min(line.seeds for line in lines if line.seeds is not None)
    if len(lines) == 1 or words == {NOT_TRAINED}:
        return Line(first.pair, MEAN, effect, first.word, seeds, first.reason)
    if NOT_INTERPRETABLE in words:
        reasons = [f"{line.task}: {line.reason}" for line in lines if line.word == NOT_INTERPRETABLE]
        return Line(first.pair, MEAN, effect, NOT_INTERPRETABLE, seeds, "; ".join(reasons))
    return Line(first.pair, MEAN, effect, word_of(effect, margin), seeds)


class Differences:
    """The differences of pairs of rows, task by task, with the examples of a task always in the same order.

    known: task to an array for each pair, in the direction of the claim: (n,), or (n, seeds, other seeds).
    """

    def __init__(self, scores: pd.DataFrame) -> None:
        self.scores = scores
        self.known: dict[str, list[np.ndarray]] = {}
        self._order: dict[str, pd.Index] = {}
        self._read: dict[tuple[str, str], pd.DataFrame] = {}

    def add(self, pair: Pair, task: str) -> None:
        """Take a pair in on a task."""
        row, reference = pair.measured
        own, other = (self._values(name, task) for name in (row, reference))
        own = own.reindex(self._order.setdefault(task, own.index))
        values = paired(own, other, f"'{task}'")
        self.known.setdefault(task, []).append(-values if pair.turned else values)

    def _values(self, row: str, task: str) -> pd.DataFrame:
        """Right or wrong, examples by seeds; of alternatives those that count."""
        if (row, task) not in self._read:
            part = self.scores[(self.scores["row"] == row) & (self.scores["task"] == task)]
            self._read[row, task] = per_example(part[part["cell"].isin(chosen_cells(part))])
        return self._read[row, task]


# ---- what is no table of accuracies ----------------------------------------------------------------------------------


def heads(claim: Claim, measured: Measured) -> Evidence:
    """Classification heads, in each task's own metric. The tasks have examples of their own."""
    lines: list[Line] = []
    frame = measured.head_metrics
    for pair in claim.among(frame["row"]) if len(frame) else ():
        if pair.second != REFERENCE:  # what the frame's differences are from
            continue
        own = table_lines(frame, pair.first, list(dict.fromkeys(frame["task"])), pair, claim.margin)
        if claim.rule == "mean" and own:
            own = [on_mean(own, independent([line.effect for line in own]), claim.margin)]
        lines += own
    return lines, independent([line.effect for line in lines]) if lines else None


def win_rates(claim: Claim, measured: Measured) -> Evidence:
    """Answers to instructions, by the judge that agrees most often with GPT-4; no verdict if it does so by chance."""
    cells = measured.run.plan.cells
    judged = [one for one in measured.judged if one["cell"] in cells and ALPACA_EVAL in cells[one["cell"]].tables]
    best = best_judge(judged, measured.resampling)
    if best is None:
        return [], None
    judge, agreement = best
    reason = ""
    if agreement.low is None or agreement.low <= CHANCE:
        reason = f"its judge '{judge}' agrees with GPT-4 on {percent(agreement.mean)} % of pairs"
    said: dict[str, list[Sequence[float | None]]] = {}
    for one in judged:
        if one["judge"] == judge:
            said.setdefault(cells[one["cell"]].row, []).append(one["preferences"])
    lines = []
    for pair in claim.among(said):
        effect = preferred(said[pair.first], said[pair.second], measured.resampling)
        if effect is not None:
            word = NOT_INTERPRETABLE if reason else word_of(effect, claim.margin)
            lines.append(Line(pair, f"judge {judge}", effect, word, len(said[pair.first]), reason))
    return lines, independent([line.effect for line in lines]) if lines else None


def parameters(claim: Claim, measured: Measured) -> Evidence:
    """Trained parameters of one row as a part of another's, or of the whole base model's; routers left out."""
    counts = {BASE: int(measured.run.base["base_parameters"])}
    cells = measured.run.plan.cells_of(*claim.within) if claim.within else measured.run.plan.cells
    for cell in cells.values():
        about = measured.run.provenance.get(measured.run.plan.trained_for(cell), {})
        count = about.get("parameters_without_router", about.get("parameters"))
        if count and cell.row != BASE:
            counts.setdefault(cell.row, count)
    for head in measured.heads if not claim.within or GLUE in claim.within else ():
        counts.setdefault(head["method"], head["parameters_without_head"])
    return within_bound(
        claim, ((pair, "", Effect(counts[pair.first] / counts[pair.second])) for pair in claim.among(counts))
    )


def seconds(claim: Claim, measured: Measured) -> Evidence:
    """Seconds of a first pass for each prompt as a part of the second's, loading included, by task."""
    asked = sum(
        measured.prompts.get(task, 0) for task in {task for tasks in measured.groups.values() for task in tasks}
    )
    found = []
    for name, cell in measured.run.plan.cells.items():
        dispatcher = cell.adapter.split("/")[1] if cell.adapter.startswith("dispatched/") else ""
        first, second = (measured.seconds.get(stage) for stage in (f"dispatch@{dispatcher}", f"generate@{name}"))
        if first and second and asked:
            ratio = first / asked / (second / measured.prompts[cell.task])
            found += [(pair, cell.task, Effect(ratio)) for pair in claim.among({cell.row, SECOND_PASS})]
    return within_bound(claim, found)


def spectra(claim: Claim, measured: Measured) -> Evidence:
    """The share of Σσ that the top components hold, the mean over layers and matrices of some kinds.

    It is read between the parts of the rank at which shares were measured.
    """
    found = []
    for base, frame in measured.run.spectra.items():
        part = frame[(frame["of"] == "sigma") & frame["module"].isin(claim.modules)]
        if len(part):
            held = part.groupby("top")["share"].mean()
            value = float(np.interp(claim.top or 0.0, held.index.to_numpy(), held.to_numpy()))
            found.append((Pair("top components", f"all of '{base}'"), "", Effect(value)))
    return within_bound(claim, found)


def within_bound(claim: Claim, found: Iterable[tuple[Pair, str, Effect]]) -> Evidence:
    """Lines of what is counted: below the claim's bound or above it."""
    bound = claim.at_most or 0.0
    lines = [Line(pair, task, effect, BETTER if effect.mean <= bound else WORSE) for pair, task, effect in found]
    return lines, independent([line.effect for line in lines]) if lines else None


def curves(claim: Claim, measured: Measured) -> Evidence:
    """Trainings from rewards: validation accuracy at the step that was kept, less that at the start.

    The step was kept for that accuracy, in its favour; the interval is of independent samples, wider than necessary.
    """
    trained = {item.name: item for _, item in measured.run.plan.trainings}
    lines = []
    for name, curve in rewarded(measured.run.curves).items():
        if name not in trained:
            continue
        item, training = trained[name], learnt(curve)
        n = int(measured.run.settings.recipe(item.row, item.method, "reinforce")["training"].get(PROMPTS, 0))
        if n == 0:
            continue
        effect = difference_of_shares(*(share(round(value * n), n) for value in (training.after, training.before)))
        word, reason = (word_of(effect), "") if training.chosen else (NOT_TRAINED, "step 0 was kept")
        lines += [Line(pair, name, effect, word, 1, reason) for pair in claim.among({item.row, START})]
    return lines, independent([line.effect for line in lines]) if lines else None


def alpha(claim: Claim, measured: Measured) -> Evidence:
    """How often a search gives the largest coefficient to an expert of the task's own domain, less chance."""
    domains = measured.run.settings.domains
    nearest, experts = [], 0
    for mixture in measured.run.mixtures.values():
        names = [name.removeprefix("svf-").rpartition("-")[0] for name in mixture["experts"]]
        if mixture["row"] in {name for first, _ in claim.pairs for name in first} and set(names) <= set(domains):
            largest = names[int(np.argmax(np.mean(mixture["alpha"], axis=0)))]
            nearest.append(domains[largest] == domains.get(mixture["task"]))
            experts = len(names)
    if not nearest:
        return [], None
    effect = difference_of_shares(share(sum(nearest), len(nearest)), Effect(1 / experts, 1 / experts, 1 / experts))
    pair = Pair(claim.pairs[0][0][0], claim.pairs[0][1][0])
    task = f"{sum(nearest)} of {len(nearest)} searches, by chance 1 of {experts}"
    return [Line(pair, task, effect, word_of(effect))], effect


SOURCES: Mapping[str, Callable[[Claim, Measured], Evidence]] = {
    GLUE: heads,
    ALPACA_EVAL: win_rates,
    "parameters": parameters,
    "seconds": seconds,
    "spectra": spectra,
    "curves": curves,
    "alpha": alpha,
}
# Why a run that has the rows may say nothing of a claim.
WITHOUT = {"seconds": "Seconds differ between two equal runs: Table 3 tells this run's, and published runs are judged."}
