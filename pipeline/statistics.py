"""What ``pipeline.evaluation`` says of a run: the report's numbers, and those of a run that is published."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.evaluation import Resampling, compare, further, trivial_baselines, win_rates
from pipeline.reporting.claims import RIVALS
from pipeline.reporting.claims_of_variants import rivals_for
from pipeline.reporting.compose import Statistics
from pipeline.reporting.published import Published
from pipeline.reporting.run import Run, scores_of


def statistics(run: Run, judged: Sequence[Mapping[str, Any]]) -> Statistics:
    """Of the run whose report this is. judged: what judges said of it, see ``reporting.further``."""
    baselines = {task: trivial_baselines(one) for task, one in run.examples.items()}
    found = _statistics(run, run.settings.tables(), baselines)
    settings = run.settings.report
    resampling = Resampling(resamples=settings.resamples, seed=settings.seed)
    return replace(found, win_rates=win_rates(judged, resampling))


def published_statistics(one: Published) -> Statistics:
    """Of a published run, in the same way, from its scores."""
    return _statistics(one.run, one.tables, one.about["baselines"])


def _statistics(run: Run, tables: list[str], baselines: Mapping[str, Mapping[str, float]]) -> Statistics:
    settings = run.settings.report
    resampling = Resampling(resamples=settings.resamples, seed=settings.seed)
    parts = {key: scores_of(run.scores, run.settings, key) for key in tables}
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
    )
