"""Searchers beside CEM: they find a planted optimum, share their bookkeeping, and resume to the same bytes."""

import pytest
import torch

from pipeline.adaptation import cma_es, scan, shooting, uniform
from pipeline.adaptation.contract import FewShot
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError

SETTINGS = FewShot(
    shots=10,
    configurations=("shared-free",),
    population=12,
    elites=6,
    generations=25,
    deviation=0.5,
    smoothing=0.0,
)
OPTIMUM = torch.tensor([[0.9, -0.3, 0.2]])
SEARCHERS = {"cma_es": cma_es, "shooting": shooting}


def planted(candidates):
    """Accuracy in steps of a tenth, log-likelihood smooth: as on ten prompts."""
    distance = (candidates - OPTIMUM).pow(2).sum((1, 2)).sqrt()
    return (1 - distance / 5).clamp(0, 1).mul(10).floor() / 10, -distance


def run(searcher, folder, judge=planted, layers=1, **changed):
    settings = SETTINGS.model_copy(update=changed)
    return searcher.search(judge, experts=3, layers=layers, settings=settings, seed=0, checkpoints=Checkpoints(folder))


def test_cma_es_finds_a_planted_optimum(tmp_path):
    torch.testing.assert_close(run(cma_es, tmp_path).alpha, OPTIMUM, atol=0.02, rtol=0)


def test_learning_beats_shooting_at_an_equal_budget(tmp_path):
    learnt, drawn = run(cma_es, tmp_path / "cma"), run(shooting, tmp_path / "shooting")
    assert learnt.prompts == drawn.prompts == 25 * 12 * 10
    assert learnt.log_likelihood > drawn.log_likelihood > -0.5


@pytest.mark.parametrize("name", SEARCHERS)
def test_the_first_candidate_is_the_uniform_one(name, tmp_path):
    seen = []

    def judge(candidates):
        seen.append(candidates)
        return torch.zeros(len(candidates)), torch.zeros(len(candidates))

    run(SEARCHERS[name], tmp_path, judge, layers=4, configurations=("per-layer-normalised",), generations=2)
    assert seen[0].shape == (12, 4, 3)
    torch.testing.assert_close(seen[0][0], torch.full((4, 3), 1 / 3))
    for candidates in seen:
        torch.testing.assert_close(candidates.sum(-1), torch.ones(12, 4))


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_killed_search_resumes_to_the_same_result(name, tmp_path):
    expected = run(SEARCHERS[name], tmp_path / "a", generations=4, configurations=("shared-free", "per-layer-free"))
    calls = 0

    def dies(candidates):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return planted(candidates)

    few = {"generations": 4, "configurations": ("shared-free", "per-layer-free")}
    with pytest.raises(KeyboardInterrupt):
        run(SEARCHERS[name], tmp_path / "b", dies, **few)
    resumed = run(SEARCHERS[name], tmp_path / "b", **few)
    assert torch.equal(resumed.alpha, expected.alpha)
    assert resumed.trace == expected.trace


def test_no_searcher_touches_the_global_generators(tmp_path):
    import numpy as np

    before, drawn = np.random.get_state()[1].copy(), torch.get_rng_state()
    for name, searcher in SEARCHERS.items():
        run(searcher, tmp_path / name, generations=2)
    assert (np.random.get_state()[1] == before).all()
    assert torch.equal(torch.get_rng_state(), drawn)


def test_the_uniform_mixture_is_judged_once(tmp_path):
    outcome = run(uniform, tmp_path)
    torch.testing.assert_close(outcome.alpha, torch.full((1, 3), 1 / 3))
    accuracy, log_likelihood = planted(outcome.alpha[None])
    assert (outcome.accuracy, outcome.log_likelihood) == (float(accuracy), float(log_likelihood))
    assert outcome.prompts == 10 and [row["prompts"] for row in outcome.trace] == [10]


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"configurations": ("per-row-free",)}, "got per-row-free"),
        ({"elites": 50}, "'elites' in few_shot, .* from 2 to the population, 12, got 50; correct it"),
    ],
)
def test_settings_that_cannot_work_are_named(name, changed, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        run(SEARCHERS[name], tmp_path, **changed)


@pytest.mark.parametrize(
    ("simplex", "most", "points", "steps"), [(True, 20, 15, 4), (True, 3, 3, 1), (False, 26, 8, 1), (False, 27, 27, 2)]
)
def test_a_scan_walks_the_finest_grid_that_it_may(simplex, most, points, steps):
    grid = scan.grid(3, most, simplex=simplex)
    assert grid.shape == (points, 3) and len({tuple(point) for point in grid.tolist()}) == points
    assert torch.equal((grid * steps).round(), grid * steps)
    assert (grid.sum(1) == 1).all() if simplex else bool((grid == 0).all(1).any())
    assert all(bool((grid == corner).all(1).any()) for corner in torch.eye(3))


def test_a_scan_keeps_every_point_with_its_accuracy(tmp_path):
    both = ("shared-normalised", "shared-free")
    outcome = run(scan, tmp_path, population=30, elites=30, configurations=both, layers=2)
    assert [len(line["points"]) for line in outcome.trace] == [28, 27]
    for line in outcome.trace:
        known, _ = planted(torch.tensor(line["points"])[:, None].expand(-1, 2, -1))
        assert line["accuracies"] == pytest.approx(known.tolist())
    assert outcome.accuracy == max(max(line["accuracies"]) for line in outcome.trace)


@pytest.mark.parametrize("changed", [{"elites": 6}, {"configurations": ("per-layer-free",)}])
def test_a_scan_that_would_not_judge_all_is_one_sentence(tmp_path, changed):
    with pytest.raises(UserError, match="expected a scan to have as many elites as its population"):
        run(scan, tmp_path, **{"population": 30, "elites": 30, **changed})
    with pytest.raises(UserError, match="expected a population of at least 8 for a scan over 3 experts, got 5"):
        scan.grid(3, 5, simplex=False)
