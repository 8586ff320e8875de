"""The paper's numbers for its tables of variants, under our rows and tasks (Transformer², Tables 5, 8, 9 and 10).

Tables 1, 2 and their like have one shape, which ``tables`` reads. These have a shape each in ``data/published``: some
name their rows otherwise, some are of one benchmark only. A table with a suffix (``table9_resampled``) is of a kind
of its own that the paper has not got, and has no numbers here.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.papers import BENCHMARKS

UNSEEN = {"math": "math", "code": "humaneval", "reasoning": "arc_challenge"}
TRAINED = {"math": "gsm8k", "code": "mbpp_pro", "reasoning": "arc_easy"}
MOVED = {"base": "base", "ordered": "llama_svf_ordered", "shuffled": "llama_svf_shuffled", "cross": "few_shot_cross"}
# Section of data/published/transformer2.yaml, and the benchmark of each domain.
SECTIONS = {
    "table5": ("table5_cross_model_unseen", UNSEEN),
    "table8": ("table8_few_shot_scaling", {"reasoning": "arc_challenge"}),
    "table9": ("table9_cross_model_training_tasks", TRAINED),
    "table10": ("table10_light_adaptation", {"reasoning": "arc_challenge"}),
    "searchers": ("uniform_alpha_math", {"math": "math"}),
}
# By number of prompts; the usual search is on ten.
SCALED = {"transformer2": "few_shot_{}", "ia3_100_steps": "ia3_100_steps_{}", "ia3_1000_steps": "ia3_1000_steps_{}"}
LIGHT = {"base": "base", "cem_10_shot": "few_shot", "cem_3_shot": "few_shot_3", "cem_light": "few_shot_light"}


def accuracies(key: str, section: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(our row, benchmark) to the paper's percent."""
    if key in ("table5", "table9"):
        lines = {row: section.get(name, {}) for row, name in MOVED.items()}
        return {(row, benchmark): value for row, line in lines.items() for benchmark, value in line.items()}
    if key == "searchers":
        return {(row, "math"): value for row, value in section.items()}
    if key == "table10":
        return {(LIGHT[name], "arc_challenge"): value for name, value in section.items()}
    found = {("base", "arc_challenge"): section["base"]} if "base" in section else {}
    for name, row in SCALED.items():
        found |= {(row.format(shots), "arc_challenge"): value for shots, value in section.get(name, {}).items()}
    usual = found.pop(("few_shot_10", "arc_challenge"), None)
    return found if usual is None else {**found, ("few_shot", "arc_challenge"): usual}


def published_of(
    key: str, domains: Mapping[str, str], published: Mapping[str, Any]
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """The paper's accuracies under our rows and tasks, and the benchmark it measured each task's domain by."""
    section, names = SECTIONS[key]
    known = accuracies(key, published.get("transformer2", {}).get(section, {}))
    found = {
        (row, task): percent / 100
        for task, domain in domains.items()
        for (row, benchmark), percent in known.items()
        if names.get(domain) == benchmark
    }
    return found, {task: BENCHMARKS[names[domain]] for task, domain in domains.items() if domain in names}
