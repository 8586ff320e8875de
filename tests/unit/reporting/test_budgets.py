"""What adapters were trained on: counted from settings and curves, said in words, and told apart in tables."""

from dataclasses import replace

import pandas as pd
import pytest

from pipeline.reporting.budgets import Budget, Trainings, budgets, sum_of_rates
from pipeline.reporting.planned import Plan, RunSettings
from pipeline.reporting.read import Run
from pipeline.reporting.tables.budgets import budgets_table
from pipeline.training.loop import Optimisation, learning_rate
from tests.made import PARAMS

SETTINGS = {"batch": 4, "weight_decay": 0.0, "clip": 1.0, "validate_every": 1, "validation_examples": 60, "patience": 9}
SETTINGS |= {"checkpoint_every": 1, "learning_rate": 2e-3, "schedule": "cosine", "warmup": 0.25, "steps": 8}


def run_of(curves: dict[str, pd.DataFrame], **changes: object) -> Run:
    """A run with one SVF expert by rewards, one LoRA on reference answers and one LoReFT of two tasks."""
    item = {"seed": 0, "base": "base"}
    plan = Plan.parse(
        {
            "train_svf": {"sums-0": {**item, "row": "svf", "method": "svf", "task": "sums", "adapter": "experts/svf"}},
            "train_supervised": {
                "lora": {**item, "row": "lora", "method": "lora", "task": "sums", "adapter": "experts/lora"}
            },
            "train_skills": {
                "loreft": {
                    **{**item, "row": "loreft", "method": "reft", "adapter": "skills/loreft"},
                    "data": ["sums", "oldest", "oldest"],
                }
            },
            "cells": {},
        },
        "",
    )
    params = {
        **PARAMS,
        "reinforce": {**SETTINGS, "samples": 3, "kl_coefficients": [0.0, 0.1]},
        "lora": {"adapter": {}, "training": {**SETTINGS, "steps": 5}},
        "reft": {"adapter": {}, "training": SETTINGS},
        **changes,
    }
    trained_on = {"sums": 20, "oldest": 7}
    return Run(
        plan=plan,
        settings=RunSettings.read(params, {}),
        scores=pd.DataFrame(),
        examples={},
        provenance={},
        base={},
        published={},
        curves=curves,
        trained_on=trained_on,
    )


def curve(steps: int, **columns: object) -> pd.DataFrame:
    rows = [{"step": step, "chosen": step == steps, "validation": 0.5} for step in range(steps + 1)]
    return pd.DataFrame(rows).assign(**columns)


def test_a_budget_is_counted_from_the_settings_and_from_what_was_done() -> None:
    ended_early = curve(6, objective="reinforce", kl_coefficient=0.1, tokens=[None, *[10.0] * 6])
    found = budgets(run_of({"svf": ended_early}))
    svf, lora, loreft = (found[path] for path in ("experts/svf", "experts/lora", "skills/loreft"))
    assert (svf.stage, svf.steps, svf.prompts, svf.distinct, svf.answers) == ("train_svf@sums-0", 6, 24, 20, 72)
    assert (svf.tokens, svf.tried, svf.validation, svf.kept) == (720, 2, 60, 6)
    assert (lora.steps, lora.prompts, lora.distinct, lora.answers, lora.tokens) == (5, 20, 20, None, None)
    assert (lora.tried, lora.kept) == (1, None)
    assert (loreft.tasks, loreft.prompts, loreft.distinct) == (("sums", "oldest"), 32, 27)
    assert svf.text == "6 steps × 4 prompts = 24 prompts seen, 20 distinct; 3 samples each, 72 answers"
    assert Trainings({"svf": [svf]}).texts("svf") == [f"{svf.text}, 720 tokens"]
    assert Trainings({"svf": [svf, replace(svf, tokens=1500)]}).texts("svf") == [
        f"{svf.text}, 720 to 1\u202f500 tokens"
    ]
    assert Trainings({"lora": [lora, lora]}).texts("lora") == [lora.text]
    assert lora.text == "5 steps × 4 prompts = 20 prompts seen, 20 distinct"


def test_only_the_chosen_coefficient_and_pair_are_counted() -> None:
    tried = [curve(8, objective="reinforce", kl_coefficient=value, tokens=value * 100) for value in (0.05, 0.1)]
    tried[1]["chosen"] = False
    assert budgets(run_of({"svf": pd.concat(tried)}))["experts/svf"].tokens == 9 * 5 * 12
    swept = curve(8, objective="next_token", learning_rate=0.5, clip=1.0)
    sweep = {"learning_rates": [0.1, 0.5], "clips": [1.0, 2.0]}
    changed = run_of(
        {"lora": swept}, lora={"adapter": {}, "training": {**SETTINGS, "schedule": "constant"}, "sweep": sweep}
    )
    found = budgets(changed)["experts/lora"]
    assert found.tried == 4 and found.thin and found.rates == pytest.approx(0.5 * (0.5 + 1 + 6))


def test_screened_prompts_and_choices_are_told() -> None:
    screened = {**SETTINGS, "samples": 3, "kl_coefficients": [0.0], "screen": {"prompts": 12}}
    svf = budgets(run_of({}, reinforce=screened))["experts/svf"]
    assert (svf.screened, svf.distinct) == (12, 12)
    assert "32 prompts seen, at most 12 distinct, kept of 12 that were screened; 3 samples each" in svf.text
    choosing = {**PARAMS["tasks"]["sums"], "decoding": {"choose_by": "sum"}}
    svf = budgets(run_of({}, tasks={**PARAMS["tasks"], "sums": choosing}))["experts/svf"]
    assert svf.samples is None and svf.text == "8 steps × 4 prompts = 32 prompts seen, 20 distinct"


def test_settings_that_do_not_say_how_long_have_no_budget() -> None:
    found = budgets(run_of({}, lora={"adapter": {}, "training": {"steps": 3}}))
    assert "experts/lora" not in found and "experts/svf" in found


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_the_sum_of_the_rates_is_that_of_the_training_loop(schedule: str, warmup: float) -> None:
    training = {**SETTINGS, "schedule": schedule, "warmup": warmup}
    settings = Optimisation.parse(training, "")
    for steps in (3, 8):
        expected = sum(learning_rate(step, settings) for step in range(1, steps + 1))
        assert sum_of_rates(training, steps, 2e-3) == pytest.approx(expected)
    assert sum_of_rates({"steps": 3}, 3, 2e-3) is None


def of(steps: int, batch: int = 4, *, tried: int = 1, validation: int = 60) -> Budget:
    return Budget("x", "reinforce", ("sums",), steps, batch, None, None, None, None, tried, validation, None, None)


def test_rows_of_one_budget_stand_together_after_what_was_not_trained() -> None:
    trained = Trainings({"svf": [of(6)], "lora": [of(8)], "dora": [of(6), of(6)], "mixed": [of(6), of(8)]})
    assert trained.ordered(["svf", "base", "lora", "dora", "mixed"]) == ["base", "svf", "dora", "lora", "mixed"]
    (said,) = trained.sentences({"svf": "SVF", "lora": "LoRA", "dora": "DoRA", "mixed": "Mixed"})
    assert said.endswith("only for that: SVF: 6 × 4; LoRA: 8 × 4; DoRA: 6 × 4; Mixed: 6 × 4 and 8 × 4.")


def test_rows_of_one_budget_need_no_sentence() -> None:
    trained = Trainings({"svf": [of(6)], "lora": [of(6)]})
    assert not trained.differ and trained.sentences({"svf": "SVF", "lora": "LoRA"}) == []


def test_a_choice_on_few_validation_prompts_is_warned_of() -> None:
    trained = Trainings({"svf": [of(6, tried=3)], "lora": [of(6, tried=2, validation=200)]})
    svf, lora = trained.sentences({"svf": "SVF", "lora": "LoRA"})
    assert svf == "SVF was chosen among 3 trainings on 60 validation prompts, fewer than 200: mostly by chance."
    assert lora == "LoRA was chosen among 2 trainings on 200 validation prompts."
    note = budgets_table({"experts/svf": of(6, tried=3), "experts/lora": of(6, tried=2, validation=200)}).note
    assert note.endswith("so they did for experts/svf (60).")


def test_a_gradient_of_another_policy_is_told() -> None:
    apart = {**SETTINGS, "samples": 3, "kl_coefficients": [0.0], "temperature": 0.7, "gradient_temperature": 1.0}
    known = budgets(run_of({}, reinforce=apart))["experts/svf"]
    (said,) = Trainings({"svf": [known]}).sentences({"svf": "SVF"})
    assert said.startswith("SVF was sampled at temperature 0.7 and took the gradient at 1: ")
    same = budgets(run_of({}, reinforce={**apart, "gradient_temperature": None}))["experts/svf"]
    assert same.temperatures is None


def test_seconds_stand_in_a_table_of_their_own() -> None:
    known = {"experts/svf": of(6)}
    bare, timed = budgets_table(known), budgets_table(known, {"x": 12.5})
    assert "seconds" not in bare.columns and set(timed.columns) - set(bare.columns) == {"seconds"}
    beside, own = (dict(zip(one.columns, one.rows[0], strict=True)) for one in (bare, timed))
    assert own == {**{name: beside[name] for name in timed.columns[:-1]}, "seconds": 12.5}
    assert budgets_table(known, {}).rows[0][-1] is None
