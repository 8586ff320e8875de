"""What ``pipeline.evaluation.intervals`` says of a run: the report's numbers, and those of a run that is published."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.core.types import Example
from pipeline.evaluation.intervals import ALSO, Resampling, compare, further, trivial_baselines, win_rates
from pipeline.reporting.claims import RIVALS
from pipeline.reporting.claims_of_variants import rivals_for
from pipeline.reporting.measured import Statistics
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run, RunSettings, scores_of
from pipeline.reporting.tables import heads, reft
from pipeline.scoring.metrics import label_numbers


def statistics(run: Run, judged: Sequence[Mapping[str, Any]], labelled: Sequence[Mapping[str, Any]]) -> Statistics:
    """Of the run whose report this is.

    judged: what judges said of it, see ``reporting.further``; labelled: what heads did, see ``reporting.heads``.
    """
    baselines = {task: trivial_baselines(one) for task, one in run.examples.items()}
    found = _statistics(run, run.settings.tables(), baselines, labelled)
    return replace(
        found,
        win_rates=win_rates(judged, _resampling(run)),
        subsets=subset_baselines(run.settings, run.examples),
    )


def subset_baselines(
    settings: RunSettings, examples: Mapping[str, Sequence[Example]]
) -> dict[str, dict[str, Mapping[str, float]]]:
    """What needs no model, of each subset of the tasks whose cells are in a table that shows subsets, by table."""
    found: dict[str, dict[str, list[Example]]] = {}
    for key in [key for key in settings.tables() if key in reft.SUBSETS]:
        for task in dict.fromkeys(cell.task for cell in settings.cells.values() if key in cell.table):
            for example in examples[task]:
                found.setdefault(key, {}).setdefault(example.id.partition("-")[0], []).append(example)
    return {key: {name: trivial_baselines(one) for name, one in parts.items()} for key, parts in found.items()}


def head_metrics(labelled: Sequence[Mapping[str, Any]], resampling: Resampling) -> pd.DataFrame:
    """Each method's heads on each task, in the task's metric, as ``evaluation.further`` returns it."""
    frames = []
    for one in labelled:
        answers = pd.DataFrame(one["answers"])
        given, expected = label_numbers(list(answers["given"]), list(answers["label"]))
        frame = pd.DataFrame({"id": answers["id"], "correct": given == expected, "given": given, "expected": expected})
        if one["metric"] == "accuracy":
            frame[f"{ALSO}accuracy"] = frame["correct"].astype(float)
        else:
            frame["metrics"] = one["metric"]
        frames.append(frame.assign(row=one["method"], task=one["subset"], seed=one["seed"], cell=one["cell"]))
    return further(pd.concat(frames, ignore_index=True), resampling, heads.REFERENCE)


def published_statistics(one: Published) -> Statistics:
    """Of a published run, in the same way, from its scores, labels and preferences."""
    found = _statistics(one.run, one.tables, one.about["baselines"], one.heads)
    return replace(found, win_rates=win_rates(one.judged, _resampling(one.run)), subsets=one.about["subsets"])


def _resampling(run: Run) -> Resampling:
    return Resampling(resamples=run.settings.report.resamples, seed=run.settings.report.seed)


def _statistics(
    run: Run,
    tables: list[str],
    baselines: Mapping[str, Mapping[str, float]],
    labelled: Sequence[Mapping[str, Any]],
) -> Statistics:
    resampling = _resampling(run)
    parts = {key: scores_of(run.scores, run.settings, key) for key in tables}
    parts |= {key: reft.by_subset(part, key) for key, part in parts.items() if key in reft.SUBSETS}
    return Statistics(
        comparisons={key: compare(part, resampling, "base") for key, part in parts.items()},
        rivals={key: compare(part, resampling, RIVALS[key]) for key, part in parts.items() if key in RIVALS},
        versus={
            key: {row: compare(part, resampling, row) for row in rivals_for(key) if row in set(part["row"])}
            for key, part in parts.items()
        },
        dispatch=compare(run.decisions, resampling, "prompt"),
        baselines=baselines,
        further=further(run.scores, resampling, "base"),
        heads=labelled,
        head_metrics=head_metrics(labelled, resampling) if labelled else pd.DataFrame(),
    )
