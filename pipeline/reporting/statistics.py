"""The report's numbers, by ``pipeline.evaluation``: of a run, and of a published one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.evaluation.answers import answers
from pipeline.evaluation.further import ALSO, further, win_rates
from pipeline.evaluation.intervals import Chosen, Estimate, Resampling, chosen_of, compare, estimate
from pipeline.evaluation.rules import best_rules
from pipeline.reporting.budgets import budgets
from pipeline.reporting.claims import read_claims, references
from pipeline.reporting.evidence import Measured, judge
from pipeline.reporting.measured import Statistics
from pipeline.reporting.published import Published
from pipeline.reporting.read import Run, scores_of
from pipeline.reporting.tables import heads, reft
from pipeline.reporting.untrained import untrained_cells
from pipeline.scoring.metrics import label_numbers


def statistics(run: Run, judged: Sequence[Mapping[str, Any]], labelled: Sequence[Mapping[str, Any]]) -> Statistics:
    """Of the run whose report this is. judged: of ``further.read_judged``. labelled: of ``heads.read_heads``."""
    found = _statistics(run, run.plan.tables, labelled)
    evidence = replace(_evidence(run, found), judged=judged)
    return replace(
        found,
        win_rates=win_rates(judged, _resampling(run)),
        claims=judge(read_claims(run.published), evidence),
    )


def published_statistics(published: Published) -> Statistics:
    """Of a published run, in the same way, from its scores, labels and preferences."""
    run, about = published.run, published.about
    found = _statistics(run, published.tables, published.heads)
    prompts = {task: splits["test"]["rows"] for task, splits in about["data"].items() if "test" in splits}
    evidence = replace(_evidence(run, found), judged=published.judged, seconds=about["seconds"], prompts=prompts)
    return replace(
        found,
        win_rates=win_rates(published.judged, _resampling(run)),
        claims=judge(read_claims(run.published), evidence),
    )


def _evidence(run: Run, found: Statistics) -> Measured:
    """What the papers' claims are judged by, out of a run's scores, decisions and heads."""
    claims, resampling = read_claims(run.published), _resampling(run)
    tables = _parts(run, run.plan.tables) | ({"dispatch": run.decisions} if len(run.decisions) else {})
    compared = _Compared(run, tables)
    versus = {
        key: {
            reference: compared.versus(key, reference, [*rows, reference])
            for reference, rows in references(claims, key, dict.fromkeys(part["row"])).items()
        }
        for key, part in tables.items()
    }
    return Measured(run, resampling, tables, versus, heads=found.heads, head_metrics=found.head_metrics)


def _parts(run: Run, tables: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The scores that fill each table; where its columns are the subsets of one task, with these as its tasks."""
    parts = {key: scores_of(run, key) for key in tables}
    return parts | {key: reft.by_subset(part, key) for key, part in parts.items() if key in reft.SUBSETS}


class _Compared:
    """The rows of tables beside one of them, as protocol wants it: rules and untrained adapters are known."""

    def __init__(self, run: Run, tables: Mapping[str, pd.DataFrame]) -> None:
        self.tables, self.resampling = tables, _resampling(run)
        self.rules, self.untrained = best_rules(run.rules), untrained_cells(run)
        self._chosen: dict[str, dict[tuple[str, str], Chosen]] = {}
        self.subsets = {key: best_rules(reft.rules_by_subset(run.rules)) for key in tables if key in reft.SUBSETS}

    def versus(self, key: str, reference: str, rows: Sequence[str] | None = None) -> pd.DataFrame:
        """A table's rows beside one of them. rows: those that are wanted (default: all)."""
        part, rules = self.tables[key], self.subsets.get(key, self.rules)
        if key not in self._chosen:
            self._chosen[key] = chosen_of(part)
        part = part if rows is None else part[part["row"].isin(rows)]
        return compare(
            part, self.resampling, reference, rules=rules, untrained=self.untrained, chosen=self._chosen[key]
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
    compared = _Compared(run, _parts(run, tables))
    return Statistics(
        comparisons={key: compared.versus(key, "base") for key in compared.tables},
        dispatch=compare(run.decisions, resampling, "prompt"),
        rules=rule_estimates(run.rules, resampling),
        answers=answers(run.scores) if len(run.scores) else pd.DataFrame(),
        budgets=budgets(run),
        further=further(run.scores, resampling, "base"),
        heads=labelled,
        head_metrics=head_metrics(labelled, resampling) if labelled else pd.DataFrame(),
    )
