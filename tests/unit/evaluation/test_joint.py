"""Effects over several pairs and tasks against numbers worked out by hand, and against the intervals of one pair."""

import numpy as np
import pytest

from pipeline.evaluation.intervals import Resampling, estimate
from pipeline.evaluation.joint import Effect, difference_of_shares, independent, joint, share
from pipeline.evaluation.preferred import best_judge, preferred

DRAWN = Resampling(resamples=2000, seed=0)


def test_one_pair_over_tasks_is_what_the_tables_say() -> None:
    generator = np.random.default_rng(1)
    tasks = [generator.choice([-1.0, 0.0, 1.0], size=50), generator.choice([-1.0, 0.0, 1.0], size=(40, 3, 2))]
    assert joint([[values] for values in tasks], DRAWN) == estimate(tasks, DRAWN)


def test_pairs_on_the_same_examples_are_resampled_together() -> None:
    values = np.random.default_rng(2).normal(size=100)
    one, twice = joint([[values]], DRAWN), joint([[values, values]], DRAWN)
    assert twice == pytest.approx(one)
    assert twice.n == 100
    opposite = joint([[values, -values]], DRAWN)
    assert opposite[:3] == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_mean_of_independent_effects_is_narrower_than_each() -> None:
    found = independent([Effect(0.1, 0.0, 0.2, 50), Effect(0.3, 0.2, 0.4, 30)])
    assert found == pytest.approx((0.2, 0.2 - 0.1 / 2**0.5, 0.2 + 0.1 / 2**0.5, 80))
    assert independent([Effect(0.1), Effect(0.3, 0.2, 0.4, 30)]) == Effect(0.2)


def test_shares_have_the_intervals_of_wilson_and_newcombe() -> None:
    assert share(8, 10)[1:3] == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert share(0, 10).low == pytest.approx(0) and share(10, 10).high == pytest.approx(1)
    found = difference_of_shares(share(56, 70), share(48, 80))  # example (a) of Newcombe's Table II
    assert found == pytest.approx((0.2, 0.0524, 0.3339, 70), abs=1e-4)
    assert difference_of_shares(Effect(0.8), share(48, 80)) == pytest.approx(Effect(0.2))


def test_the_judge_that_agrees_most_often_is_taken() -> None:
    judged = [{"judge": "chance", "agreed": [1, 0, 0, 1]}, {"judge": "good", "agreed": [1, 1, 1, 0]}]
    assert best_judge([*judged, judged[0]], DRAWN)[0] == "good"
    assert best_judge([], DRAWN) is None


def test_win_rates_are_paired_over_the_instructions_judged_for_both() -> None:
    first, second = [[2.0, 2.0, 1.0, None], [2.0, 1.0, 1.0, 2.0]], [[1.0, 1.5, None, 1.0]]
    found = preferred(first, second, DRAWN)
    # Of the first two instructions: (1 + 0.5) / 2 over the first seed, (1 − 0.5) / 2 over the second.
    assert found.mean == pytest.approx((0.75 + 0.25) / 2) and found.n == 2
    assert preferred([[None]], [[1.0]], DRAWN) is None
