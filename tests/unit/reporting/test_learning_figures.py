"""The figures of learning and of searches: what is drawn against what."""

import re
from typing import Any

import pandas as pd

from pipeline.reporting.figures import adapting, learning
from pipeline.reporting.figures.choose import by_rate
from pipeline.reporting.planned import Plan
from pipeline.reporting.read import Run, kept_of_sweep
from pipeline.reporting.tables.learning import SIGNALS, learnt, measured
from pipeline.reporting.tables.variants import search_claims


def curve(chosen: int | None, **columns: Any) -> pd.DataFrame:
    """A curve of four steps that starts at a validation accuracy of 0.25."""
    rows = [
        {"step": step, "train": 0.1 * step, "validation": 0.25 + 0.1 * step, "chosen": step == chosen}
        for step in range(5)
    ]
    return pd.DataFrame(rows).assign(objective="reinforce", kl_coefficient=0.0, **columns)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_validation_is_drawn_against_the_same_prompts_before_training() -> None:
    drawn = learning.learning_curves({"sums-0": curve(4)}, "x")
    assert "before training, step 0" in texts(drawn) and not any("test" in text for text in texts(drawn))


def test_of_a_sweep_every_rate_has_a_panel() -> None:
    parts = [curve(4 if rate == 0.01 else None, learning_rate=rate, clip=1.0) for rate in (0.001, 0.01)]
    sweep = pd.concat(parts, ignore_index=True)
    run = Run(Plan.parse({"cells": {}}, ""), None, sweep, {}, {}, {}, {}, curves={"x": kept_of_sweep(sweep)})  # type: ignore[arg-type]
    assert list(by_rate("x", run)) == ["x"]
    swept = Run(Plan.parse({"cells": {}}, ""), None, sweep, {}, {}, {}, {}, sweeps={"x": sweep})  # type: ignore[arg-type]
    panels = by_rate("x", swept)
    assert list(panels) == ["x, rate 0.001", "x, rate 0.01"]
    assert [len(part) for part in panels.values()] == [5, 5]
    drawn = texts(learning.learning_curves(panels, "x"))
    assert "x, rate 0.001 (λ = 0)" in drawn and "x, rate 0.01 (λ = 0)" in drawn


def test_many_curves_are_drawn_in_several_rows() -> None:
    drawn = texts(learning.learning_curves({f"c-{number}": curve(4) for number in range(7)}, "x"))
    assert [f"c-{number} (λ = 0)" in drawn for number in range(7)] == [True] * 7
    assert drawn.count("training step") == 7


def test_what_a_curve_has_not_measured_is_said_to_be_missing() -> None:
    whole = curve(4, mixed=0.5, largest=[None, 0.1, 0.2, 0.3, 0.4])
    found = {"sums-0": measured(whole), "oldest-0": measured(curve(4, mixed=0.25))}
    assert list(found["sums-0"]) == ["mixed", "largest"] and list(found["sums-0"]["largest"]) == [0.1, 0.2, 0.3, 0.4]
    drawn = texts(learning.signals(found, SIGNALS, "x"))
    assert drawn.count("not measured") == 1 and not any("entropy" in text for text in drawn)


TRACE = [
    {"configuration": "shared-free", "iteration": number, "best_accuracy": best, "elites_accuracy": 0.2, "prompts": 10}
    for number, best in enumerate((0.3, 0.2, 0.5))
]


def mixture(row: str, trace: list[dict[str, Any]]) -> dict[str, Any]:
    strategy = "scan" if row == "scan" else "few_shot"
    return {"row": row, "task": "queue", "seed": 0, "strategy": strategy, "trace": trace}


def run_of(**mixtures: dict[str, Any]) -> Run:
    return Run(Plan.parse({"cells": {}}, ""), None, pd.DataFrame(), {}, {}, {}, {}, mixtures=mixtures)  # type: ignore[arg-type]


def test_searches_stand_by_generation() -> None:
    drawn = texts(adapting.searches({"a": mixture("few_shot", TRACE), "b": mixture("uniform", [])}, "x"))
    assert "generation" in drawn and "shared-free" in drawn and "few_shot, seed 0" in drawn
    assert not any("uniform" in text for text in drawn)


def test_a_sentence_says_which_searches_rose_after_their_first_generation() -> None:
    level = [{**row, "best_accuracy": 0.3} for row in TRACE]
    once = mixture("x", TRACE[:1])
    (said,) = search_claims(run_of(a=mixture("few_shot", TRACE), b=mixture("few_shot_3", level), c=once))
    assert said.startswith("After its first generation, 1 of 2 searches for α found a better mixture: SVF mixed by few")
    assert "on queue, seed 0 (30 to 50 %, in generation 3 of shared-free)" in said
    assert said.endswith("These did not: SVF mixed by CEM on 3 prompts on queue, seed 0 (30 %).")


def test_a_scan_says_whether_the_mixture_matters() -> None:
    grid = [{"configuration": "shared-free", "iteration": 0, "best_accuracy": 0.6, "accuracies": [0.2, 0.6, 0.6]}]
    (said,) = search_claims(run_of(a=mixture("scan", grid)))
    assert said == (
        "scan on queue, seed 0: of 3 mixtures, the worst has 20 % on the few prompts, and 2 have the best, 60 %."
    )
    (level,) = search_claims(run_of(a=mixture("scan", [{**grid[0], "accuracies": [0.5, 0.5]}])))
    assert level.endswith("all have 50 % on the few prompts, so that α does not matter there.")
    drawn = texts(adapting.scans({"a": mixture("scan", grid)}, "x"))
    assert "mixture, best first" in drawn and "shared-free" in drawn


def test_where_the_curve_says_what_was_right_the_reward_is_not_asked() -> None:
    """A wrong answer may be worth another number than −1."""
    rows = curve(4, right=[None, 0.0, 0.1, 0.2, 0.0])
    assert learnt(rows).rewarded == 2
    assert learnt(rows.drop(columns="right").assign(train=-1.0)).rewarded == 0
