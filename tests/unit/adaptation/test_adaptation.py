"""The strategies: a planted optimum is found, categories are read right, mixtures are what was decided."""

import pytest
import torch

from pipeline.adaptation import dispatch, few_shot, select
from pipeline.adaptation.contract import FewShot, ranking
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Compute
from tests.tiny import tiny_base

COMPUTE = Compute(device="cpu", dtype="float32", threads=1, batch_tokens=200, cache_tokens=2000)
SETTINGS = FewShot(
    shots=10,
    configurations=("shared-free", "per-layer-free", "shared-normalised"),
    population=40,
    elites=8,
    generations=25,
    deviation=0.5,
    smoothing=0.3,
)


def planted(optimum: torch.Tensor):
    """Accuracy in steps of a tenth, log-likelihood smooth: as on ten prompts."""

    def judge(candidates):
        distance = (candidates - optimum).pow(2).sum((1, 2)).sqrt()
        return (1 - distance / 5).clamp(0, 1).mul(10).floor() / 10, -distance

    return judge


def test_cem_finds_a_planted_optimum(tmp_path):
    optimum = torch.tensor([[0.9, -0.3, 0.2], [0.1, 0.8, 0.5]])
    outcome = few_shot.search(
        planted(optimum), experts=3, layers=2, settings=SETTINGS, seed=0, checkpoints=Checkpoints(tmp_path)
    )
    assert outcome.configuration == "per-layer-free"
    torch.testing.assert_close(outcome.alpha, optimum, atol=0.1, rtol=0)
    assert outcome.prompts == 3 * 25 * 40 * 10


def test_normalised_candidates_sum_to_one(tmp_path):
    seen = []

    def judge(candidates):
        seen.append(candidates)
        return torch.zeros(len(candidates)), torch.zeros(len(candidates))

    only = SETTINGS.model_copy(update={"configurations": ("per-layer-normalised",), "generations": 2})
    few_shot.search(judge, experts=3, layers=4, settings=only, seed=0, checkpoints=Checkpoints(tmp_path))
    for candidates in seen:
        assert candidates.shape == (40, 4, 3)
        torch.testing.assert_close(candidates.sum(-1), torch.ones(40, 4))


def test_a_killed_search_resumes_to_the_same_result(tmp_path):
    judge = planted(torch.tensor([[0.9, -0.3, 0.2]]))
    few = SETTINGS.model_copy(update={"generations": 4})
    expected = few_shot.search(
        judge, experts=3, layers=1, settings=few, seed=0, checkpoints=Checkpoints(tmp_path / "a")
    )
    calls = 0

    def dies(candidates):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return judge(candidates)

    with pytest.raises(KeyboardInterrupt):
        few_shot.search(dies, experts=3, layers=1, settings=few, seed=0, checkpoints=Checkpoints(tmp_path / "b"))
    resumed = few_shot.search(judge, experts=3, layers=1, settings=few, seed=0, checkpoints=Checkpoints(tmp_path / "b"))
    assert torch.equal(resumed.alpha, expected.alpha)
    assert resumed.trace == expected.trace


def test_elites_are_ranked_by_accuracy_and_ties_by_likelihood():
    assert ranking(torch.tensor([0.5, 0.9, 0.5, 0.9]), torch.tensor([-1.0, -3.0, -0.5, -2.0])) == [3, 1, 2, 0]


def test_select_takes_the_best_whole_expert(tmp_path):
    def judge(candidates):
        assert torch.equal(candidates[:, 0], torch.eye(3))
        return torch.tensor([0.2, 0.7, 0.7]), torch.tensor([0.0, -2.0, -1.0])

    outcome = select.search(judge, experts=3, layers=2, settings=SETTINGS, seed=0, checkpoints=Checkpoints(tmp_path))
    assert outcome.alpha.tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"configurations": ("per-row-free",)}, "'configurations' in few_shot, .*, got per-row-free"),
        ({"elites": 50}, "'elites' in few_shot, .* from 2 to the population, 40, got 50; correct it"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        few_shot.search(
            planted(torch.zeros(1, 3)),
            experts=3,
            layers=1,
            settings=SETTINGS.model_copy(update=change),
            seed=0,
            checkpoints=Checkpoints(tmp_path),
        )


DISPATCH = dispatch.Dispatch(
    names={"math": "Math", "code": "Code", "others": "Other"},
    system="s",
    question="Which?\n{prompt}",
)
PROMPT = Example(
    "p", ({"role": "system", "content": "no"}, {"role": "user", "content": "1 {x}?"}), "2", {"domain": "math"}
)


def test_the_question_holds_the_prompt_but_not_its_system_message():
    asked = dispatch.question(PROMPT, DISPATCH, "Math")
    assert asked.messages[-1]["content"] == "Which?\n1 {x}?"
    assert asked.messages[0]["content"] == "s"


def test_only_a_category_as_the_whole_answer_counts_as_said():
    assert dispatch.said(" math.\n", DISPATCH) == "math"
    assert dispatch.said("Math problem", DISPATCH) is None


def test_categories_are_ranked_by_the_likelihood_of_their_names():
    base = tiny_base()
    weights = dispatch.categories(base, [PROMPT, PROMPT], Attachment(), settings=DISPATCH, compute=COMPUTE)
    prompt = base.prompt_ids(dispatch.question(PROMPT, DISPATCH, "").messages)
    for category, name in DISPATCH.names.items():
        answer = base.answer_ids(name)
        logits = base.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        expected = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).sum()
        assert weights[0][category] == pytest.approx(float(expected), abs=1e-4)
    assert dispatch.predicted(weights[0]) == max(weights[0], key=weights[0].get)


def test_a_decision_is_a_one_hot_row_and_others_is_the_base_model():
    mixture = dispatch.mixture(
        ["a", "b", "c"], ["code", "others", "math"], domains=["math", "code"], experts=["m", "c"], mix="paper"
    )
    assert mixture.coefficients == ((0.0, 1.0), (0.0, 0.0), (1.0, 0.0))
    assert mixture.ids == ("a", "b", "c")
