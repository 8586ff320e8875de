"""The report's numbers, by ``pipeline.evaluation``: of a run, and of a published one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.core.types import Example
from pipeline.evaluation.further import ALSO, further, win_rates
from pipeline.evaluation.intervals import Resampling, compare, trivial_baselines
from pipeline.reporting.claims import read_claims, references
from pipeline.reporting.evidence import Measured, judge
from pipeline.reporting.measured import Statistics
from pipeline.reporting.planned import Plan
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run, scores_of
from pipeline.reporting.tables import heads, reft
from pipeline.scoring.metrics import label_numbers


def statistics(run: Run, judged: Sequence[Mapping[str, Any]], labelled: Sequence[Mapping[str, Any]]) -> Statistics:
    """Of the run whose report this is. judged: of ``further.read_judged``. labelled: of ``heads.read_heads``."""
    baselines = {task: trivial_baselines(examples) for task, examples in run.examples.items()}
    found = _statistics(run, run.plan.tables, baselines, labelled)
    evidence = _evidence(run, found)
    return replace(
        found,
        win_rates=win_rates(judged, _resampling(run)),
        subsets=subset_baselines(run.plan, run.examples),
        claims=judge(read_claims(run.published), replace(evidence, judged=judged)),
    )


def published_statistics(published: Published) -> Statistics:
    """Of a published run, in the same way, from its scores, labels and preferences."""
    run, about = published.run, published.about
    found = _statistics(run, published.tables, about["baselines"], published.heads)
    prompts = {task: splits["test"]["rows"] for task, splits in about["data"].items() if "test" in splits}
    evidence = replace(_evidence(run, found), judged=published.judged, seconds=about["seconds"], prompts=prompts)
    return replace(
        found,
        win_rates=win_rates(published.judged, _resampling(run)),
        subsets=about["subsets"],
        claims=judge(read_claims(run.published), evidence),
    )


def _evidence(run: Run, found: Statistics) -> Measured:
    """What the papers' claims are judged by, out of a run's scores, decisions and heads."""
    claims, resampling = read_claims(run.published), _resampling(run)
    tables = _parts(run, run.plan.tables) | ({"dispatch": run.decisions} if len(run.decisions) else {})
    versus = {
        key: {
            reference: compare(part[part["row"].isin([*rows, reference])], resampling, reference)
            for reference, rows in references(claims, key, dict.fromkeys(part["row"])).items()
        }
        for key, part in tables.items()
    }
    return Measured(run, resampling, tables, versus, heads=found.heads, head_metrics=found.head_metrics)


def _parts(run: Run, tables: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The scores that fill each table; where its columns are the subsets of one task, with these as its tasks."""
    parts = {key: scores_of(run, key) for key in tables}
    return parts | {key: reft.by_subset(part, key) for key, part in parts.items() if key in reft.SUBSETS}


def subset_baselines(
    plan: Plan, examples: Mapping[str, Sequence[Example]]
) -> dict[str, dict[str, Mapping[str, float]]]:
    """For each table whose columns are the subsets of one task, the accuracies that need no model, by subset."""
    tables: dict[str, dict[str, list[Example]]] = {}
    for key in [key for key in plan.tables if key in reft.SUBSETS]:
        for task in dict.fromkeys(cell.task for cell in plan.cells_of(key).values()):
            for example in examples[task]:
                tables.setdefault(key, {}).setdefault(example.id.partition("-")[0], []).append(example)
    return {
        key: {subset: trivial_baselines(part) for subset, part in subsets.items()} for key, subsets in tables.items()
    }


def head_metrics(labelled: Sequence[Mapping[str, Any]], resampling: Resampling) -> pd.DataFrame:
    """How well each method's heads label each task, in its own metric, as ``evaluation.further`` returns it."""
    frames = []
    for head in labelled:
        answers = pd.DataFrame(head["answers"])
        given, expected = label_numbers(list(answers["given"]), list(answers["label"]))
        frame = pd.DataFrame({"id": answers["id"], "correct": given == expected, "given": given, "expected": expected})
        if head["metric"] == "accuracy":
            frame[f"{ALSO}accuracy"] = frame["correct"].astype(float)
        else:
            frame["metrics"] = head["metric"]
        frames.append(frame.assign(row=head["method"], task=head["subset"], seed=head["seed"], cell=head["cell"]))
    return further(pd.concat(frames, ignore_index=True), resampling, heads.REFERENCE)


def _resampling(run: Run) -> Resampling:
    return Resampling(resamples=run.settings.report.resamples, seed=run.settings.report.seed)


def _statistics(
    run: Run,
    tables: Sequence[str],
    baselines: Mapping[str, Mapping[str, float]],
    labelled: Sequence[Mapping[str, Any]],
) -> Statistics:
    resampling = _resampling(run)
    return Statistics(
        comparisons={key: compare(part, resampling, "base") for key, part in _parts(run, tables).items()},
        dispatch=compare(run.decisions, resampling, "prompt"),
        baselines=baselines,
        further=further(run.scores, resampling, "base"),
        heads=labelled,
        head_metrics=head_metrics(labelled, resampling) if labelled else pd.DataFrame(),
    )
