"""The report's numbers, by ``pipeline.evaluation``: of a run, and of a published one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.evaluation.answers import answers
from pipeline.evaluation.further import ALSO, further, win_rates
from pipeline.evaluation.intervals import Estimate, Resampling, compare, estimate
from pipeline.evaluation.rules import best_rules
from pipeline.reporting.budgets import budgets
from pipeline.reporting.claims import RIVALS
from pipeline.reporting.measured import Statistics
from pipeline.reporting.papers import rivals_for
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run, scores_of
from pipeline.reporting.tables import heads, reft
from pipeline.reporting.untrained import untrained_cells
from pipeline.scoring.metrics import label_numbers


def statistics(run: Run, judged: Sequence[Mapping[str, Any]], labelled: Sequence[Mapping[str, Any]]) -> Statistics:
    """Of the run whose report this is. judged: of ``further.read_judged``. labelled: of ``heads.read_heads``."""
    return replace(_statistics(run, run.plan.tables, labelled), win_rates=win_rates(judged, _resampling(run)))


def published_statistics(published: Published) -> Statistics:
    """Of a published run, in the same way, from its scores, labels and preferences."""
    run = published.run
    return replace(
        _statistics(run, published.tables, published.heads), win_rates=win_rates(published.judged, _resampling(run))
    )


def rule_estimates(rules: Mapping[str, pd.DataFrame], resampling: Resampling) -> dict[str, dict[str, Estimate]]:
    """Of each task, every rule that needs no model with its accuracy, the best one first."""
    found = {}
    for task, frame in rules.items():
        values = {str(name): part["value"].to_numpy(dtype=float) for name, part in frame.groupby("rule")}
        ordered = sorted(values, key=lambda name: (-values[name].mean(), name))
        found[task] = {name: estimate([values[name]], resampling) for name in ordered}
    return found


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


def _statistics(run: Run, tables: Sequence[str], labelled: Sequence[Mapping[str, Any]]) -> Statistics:
    resampling = _resampling(run)
    parts = {key: scores_of(run, key) for key in tables}
    parts |= {key: reft.by_subset(part, key) for key, part in parts.items() if key in reft.SUBSETS}
    best, untrained = best_rules(run.rules), untrained_cells(run)
    subsets = {key: best_rules(reft.rules_by_subset(run.rules)) for key in parts if key in reft.SUBSETS}

    def compared(key: str, reference: str) -> pd.DataFrame:
        """A table's rows beside one of them."""
        rules = subsets.get(key, best)
        return compare(parts[key], resampling, reference, rules=rules, untrained=untrained)

    return Statistics(
        comparisons={key: compared(key, "base") for key in parts},
        rivals={key: compared(key, RIVALS[key]) for key in parts if key in RIVALS},
        versus={
            key: {row: compared(key, row) for row in rivals_for(key) if row in set(part["row"])}
            for key, part in parts.items()
        },
        dispatch=compare(run.decisions, resampling, "prompt"),
        rules=rule_estimates(run.rules, resampling),
        answers=answers(run.scores) if len(run.scores) else pd.DataFrame(),
        budgets=budgets(run),
        further=further(run.scores, resampling, "base"),
        heads=labelled,
        head_metrics=head_metrics(labelled, resampling) if labelled else pd.DataFrame(),
    )
