"""REINFORCE: its gradient on a bandit, its advantages, and going on after a kill."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import PLAIN, Example, Score
from pipeline.methods.svf import SvfLearner, Targets
from pipeline.model.decoding.batch import Answer
from pipeline.model.decoding.choose import continuations
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.lm_head import lm_head_of
from pipeline.training import reinforce
from pipeline.training.loop import Training
from pipeline.training.questions import teaching
from pipeline.training.rollouts import Rollout, Shares, advantages, chosen, rewarding, written
from pipeline.training.screening import Screen
from tests.tiny import MODULES, REINFORCE, same_tensors, tiny_base, tiny_compute, tiny_factors

COMPUTE = tiny_compute(200, 2000)


def settings(**changes) -> reinforce.Reinforce:
    return reinforce.Reinforce.parse({**REINFORCE, "steps": 4, "batch": 3, **changes}, "reinforce")


class BanditBody(nn.Module):
    def __init__(self, state: list[torch.Tensor]) -> None:
        super().__init__()
        self.state = state

    def forward(self, input_ids, **_):
        return SimpleNamespace(last_hidden_state=self.state[0].expand(*input_ids.shape, -1))


class BanditModel(nn.Module):
    """A language model of one decision: whatever the prompt, the logits of the next token are those of the learner."""

    def __init__(self, arms: int) -> None:
        super().__init__()
        self.head = nn.Linear(arms, arms, bias=False)
        self.head.weight.data = torch.eye(arms)
        self.head.requires_grad_(False)
        self.state = [torch.zeros(arms)]  # in a list: a module would take a parameter for its own

    def get_decoder(self):
        return BanditBody(self.state)

    def get_output_embeddings(self):
        return self.head


class BanditLearner:
    def __init__(self, theta: torch.Tensor) -> None:
        self.theta = nn.Parameter(theta.clone())

    def parameters(self):
        return [self.theta]

    @contextmanager
    def learning(self, model):
        model.state = [self.theta]
        yield Attachment()
        model.state = [torch.zeros(len(self.theta))]


@pytest.mark.parametrize("estimator", ["none", "rloo"])
def test_the_gradient_on_a_bandit_equals_the_analytic_one(estimator):
    theta = torch.tensor([0.2, -0.4, 0.7])
    reward = torch.tensor([1.0, -1.0, -1.0])
    p = theta.softmax(0)
    # ∂/∂θ E[r] = p ⊙ (r − E[r]); the base model is uniform: ∂/∂θ KL = p ⊙ (log p − log q − KL)
    kl = (p * (p.log() + torch.tensor(3.0).log())).sum()
    analytic = -p * (reward - (p * reward).sum()) + 0.3 * p * (p.log() + torch.tensor(3.0).log() - kl)
    model, learner = BanditModel(3), BanditLearner(theta)
    base = SimpleNamespace(model=model, lm_head=lm_head_of(model), device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    rollouts = []
    for _ in range(3000):
        arms = torch.multinomial(p, 8, replacement=True, generator=generator)
        answers = [Answer((int(arm),), (float(p[arm].log()),), True) for arm in arms]
        rollouts.append(Rollout([0], answers, reward[arms]))
    reinforce.loss_and_gradient(
        base, learner, rollouts, settings=settings(advantage=estimator), kl_coefficient=0.3, compute=COMPUTE
    )
    torch.testing.assert_close(learner.theta.grad, analytic, atol=0.015, rtol=0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_policy_that_is_sampled_is_the_one_whose_gradient_is_taken(temperature):
    theta = torch.tensor([0.2, -0.4, 0.7])
    reward = torch.tensor([1.0, -1.0, -1.0])
    p = (theta / temperature).softmax(0)
    kl = (p * (p.log() + torch.tensor(3.0).log())).sum()
    # ∂/∂θ of E[r] − λ KL under softmax(θ/τ): that under softmax(θ), over τ
    analytic = -p * (reward - (p * reward).sum()) + 0.3 * p * (p.log() + torch.tensor(3.0).log() - kl)
    learner = BanditLearner(theta)
    model = BanditModel(3)
    base = SimpleNamespace(model=model, lm_head=lm_head_of(model), device=torch.device("cpu"))
    counts = (p * 1000).round().int().tolist()  # as many answers of each kind as are expected
    arms = torch.tensor([arm for arm, count in enumerate(counts) for _ in range(count)])
    answers = [Answer((int(arm),), (), True) for arm in arms]
    asked = settings(temperature=temperature)
    reinforce.loss_and_gradient(
        base,
        learner,
        [Rollout([0], answers, reward[arms])],
        settings=asked,
        kl_coefficient=0.3,
        compute=COMPUTE,
    )
    torch.testing.assert_close(learner.theta.grad, analytic / temperature, atol=2e-3, rtol=0)
    assert settings(temperature=temperature, gradient_temperature=1.0).learnt_at == 1.0
    assert settings(temperature=0.0).learnt_at == 1.0


@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_with_all_answers_listed_the_gradient_on_a_bandit_is_exact(coefficient):
    theta = torch.tensor([0.2, -9.0, 0.7], dtype=torch.float64)
    reward = torch.tensor([-1.0, 1.0, -1.0])  # for what sampling would never try
    slopes = torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64)
    free = theta.clone().requires_grad_()
    log_q = (slopes * free.log_softmax(0)).log_softmax(0)
    base_log_q = (slopes * torch.zeros(3, dtype=torch.float64).log_softmax(0)).log_softmax(0)
    kl = (log_q.exp() * (log_q - base_log_q)).sum()
    (-(log_q.exp() * reward).sum() + coefficient * kl).backward()
    learner = BanditLearner(theta.float())
    model = BanditModel(3)
    base = SimpleNamespace(model=model, lm_head=lm_head_of(model), device=torch.device("cpu"))
    answers = [Answer((arm,), (), True) for arm in range(3)]
    shares = Shares(log_q.detach(), slopes, base_log_q)
    measured = reinforce.loss_and_gradient(
        base,
        learner,
        [Rollout([0], answers, reward, shares)] * 2,
        settings=settings(),
        kl_coefficient=coefficient,
        compute=COMPUTE,
    )
    torch.testing.assert_close(learner.theta.grad.double(), free.grad, atol=1e-6, rtol=1e-4)
    assert measured["kl"] == pytest.approx(float(kl.detach()))
    assert measured["entropy"] == pytest.approx(float(-(log_q.exp() * log_q).sum().detach()))


def test_an_exact_gradient_of_samples_is_refused():
    sampled = Rollout([0], [Answer((1,), (0.0,), True)], torch.ones(1))
    with pytest.raises(ValueError, match="can't be exact"):
        sampled.weights("exact")


def test_the_halves_of_a_step_agree_where_all_is_signal_and_not_where_it_is_noise():
    """One prompt a micro-batch; the first half of the step and the second are compared."""
    model = BanditModel(3)
    base = SimpleNamespace(model=model, lm_head=lm_head_of(model), device=torch.device("cpu"))
    answers = [Answer((arm,), (), True) for arm in range(3)]

    def cosine(*rewards):
        rollouts = [Rollout([0], answers, torch.tensor(each)) for each in rewards]
        one_at_a_time = tiny_compute(1, 2000)
        measured = reinforce.loss_and_gradient(
            base,
            BanditLearner(torch.zeros(3)),
            rollouts,
            settings=settings(),
            kl_coefficient=0.0,
            compute=one_at_a_time,
        )
        return measured.get("cosine")

    assert cosine([1.0, -1.0, -1.0], [1.0, -1.0, -1.0]) == pytest.approx(1, abs=1e-6)
    assert cosine([1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]) == pytest.approx(-1, abs=1e-6)
    assert cosine([1.0, -1.0, -1.0], [1.0, 1.0, 1.0]) is None  # nothing to learn from in the second half
    assert cosine([1.0, -1.0, -1.0]) is None


def test_a_right_answer_that_was_cut_or_has_no_mark_is_wrong():
    def score(examples, texts):
        return [Score("", 1.0, text != "3", text, marked=text != "4") for text in texts]

    base = SimpleNamespace(text=lambda ids: str(ids[0]))
    answers = [Answer((5,), (), True), Answer((5,), (), False), Answer((4,), (), True), Answer((3,), (), True)]
    assert rewarding(base, score, -0.1)([None] * 4, answers) == [1.0, -0.1, -0.1, -0.1]


def test_leave_one_out_is_the_reward_less_the_mean_of_the_others():
    rewards = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    expected = [float(r - (rewards.sum() - r) / 4) for r in rewards]
    assert advantages(rewards, "rloo").tolist() == pytest.approx(expected)
    assert torch.equal(advantages(rewards, "none"), rewards)
    assert advantages(rewards, "grpo").mean().abs() < 1e-6
    assert advantages(torch.ones(4), "rloo").abs().max() == 0
    assert advantages(torch.ones(4), "grpo").abs().max() == 0


def examples(prefix: str, count: int) -> list[Example]:
    return [Example(f"{prefix}{i}", ({"role": "user", "content": f"{prefix}{i * 7}"},), "x") for i in range(count)]


def even_first(asked, answers):
    """Rewards answers whose first token is even: learnable, and known without a task."""
    return [1.0 if answer.ids[0] % 2 == 0 else -1.0 for answer in answers]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def factors(base, tmp_path_factory):
    return tiny_factors(base.model, tmp_path_factory.mktemp("svd"))


def questions(base, reward=even_first, validation_examples: int = 4) -> reinforce.Questions:
    draw = written(base, compute=COMPUTE, max_new_tokens=3, samples=4, temperature=1.0)
    return reinforce.Questions(examples("t", 20), examples("v", validation_examples), draw, reward)


def run(base, factors, checkpoints, reward=even_first, **changes):
    targets = Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)
    return reinforce.train(
        base,
        lambda: SvfLearner(factors, targets, torch.Generator().manual_seed(0)),
        questions(base, reward),
        compute=COMPUTE,
        training=Training(settings(**changes), seed=0, checkpoints=checkpoints),
    )


def test_training_raises_the_reward(base, factors, tmp_path):
    _, curve = run(
        base,
        factors,
        Checkpoints(tmp_path),
        steps=30,
        batch=10,
        learning_rate=0.05,
        schedule="constant",
        kl_coefficients=[0.0],
        validate_every=30,
    )
    rewards = [row["train"] for row in curve if row["step"]]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3


def test_a_killed_training_resumes_to_the_same_bits(base, factors, tmp_path):
    undisturbed, curve = run(base, factors, Checkpoints(tmp_path / "a"))
    calls = 0

    def dies(asked, answers):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return even_first(asked, answers)

    with pytest.raises(KeyboardInterrupt):
        run(base, factors, Checkpoints(tmp_path / "b"), reward=dies)
    resumed, again = run(base, factors, Checkpoints(tmp_path / "b"))
    assert same_tensors(undisturbed.state(), resumed.state())
    assert curve == again


def test_the_learner_ends_at_the_step_that_validated_best(base, factors, tmp_path):
    learner, curve = run(base, factors, Checkpoints(tmp_path))
    best = max((row["validation"], -row["step"]) for row in curve if row["validation"] is not None)
    (chosen,) = [row for row in curve if row["chosen"]]
    assert (chosen["validation"], -chosen["step"]) == best
    if chosen["step"] == 0:
        assert bool((learner.flat == 0).all())


def test_every_kl_coefficient_is_tried_and_one_row_is_chosen(base, factors, tmp_path):
    _, curve = run(base, factors, Checkpoints(tmp_path), steps=2, kl_coefficients=[0.0, 0.2])
    assert {row["kl_coefficient"] for row in curve} == {0.0, 0.2}
    assert sum(row["chosen"] for row in curve) == 1


def test_training_ends_when_validation_brings_no_new_best(base, factors, tmp_path):
    """Greedy answers of a tiny step are those of the base model: every validation is a tie."""
    _, curve = run(base, factors, Checkpoints(tmp_path), learning_rate=1e-9, validate_every=1, patience=1, steps=9)
    assert [row["step"] for row in curve] == [0, 1, 2] and curve[0]["chosen"]


def test_the_share_of_rewarded_answers_warns_where_none_is(capsys):
    rows = [{"step": 0}, {"step": 1, "right": 0.0}, {"step": 2, "right": 0.5}]
    assert reinforce.share_rewarded(rows, "sums") == 0.25 and not capsys.readouterr().err
    assert reinforce.share_rewarded(rows[:2], "sums") == 0
    assert "expected some answer to 'sums' to be rewarded, got none in 1 steps" in capsys.readouterr().err


def test_no_examples_is_an_error_in_one_sentence(base, factors, tmp_path):
    with pytest.raises(UserError, match="expected training and validation examples, got 20 and 0"):
        reinforce.train(
            base,
            lambda: BanditLearner(torch.zeros(2)),
            questions(base, validation_examples=0),
            compute=COMPUTE,
            training=Training(settings(), seed=0, checkpoints=Checkpoints(tmp_path)),
        )


def choosing(id: str = "x") -> Example:
    """An example whose prompt is bare text; its choices are two, three and two tokens long, a blank before them one."""
    choices = {"a": "5", "b": "67", "c": "8"}
    return Example(id, ({"role": PLAIN, "content": "20"},), "", {"choices": choices, "answer": "b"})


@pytest.mark.parametrize(("per", "ended", "divisors"), [("sum", True, (1, 1, 1)), ("token", False, (2, 3, 2))])
def test_choices_are_listed_with_their_shares(base, per, ended, divisors):
    example = choosing()
    draw = chosen(base, per, compute=COMPUTE, temperature=2.0, penalised=True, ended=ended)
    (listed,) = draw(Attachment(), [example], torch.Generator())
    names = continuations(base, example, ended=ended)
    assert [len(name) for name in names] == [length + ended for length in (2, 3, 2)]
    prompt = base.prompt_ids(example.messages)
    likelihood = torch.zeros(3)
    for k, name in enumerate(names):
        logits = base.model(input_ids=torch.tensor([[*prompt, *name]])).logits[0].log_softmax(-1)
        likelihood[k] = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(name)[:, None]).sum()
    expected = (likelihood / torch.tensor(divisors) / 2).softmax(0)
    assert [list(answer.ids) for answer in listed.answers] == names
    assert listed.shares.q.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert listed.shares.kl == pytest.approx(0, abs=1e-9)  # nothing is attached: it is the base model
    (greedy,) = draw(Attachment(), [example], None)
    assert [list(answer.ids) for answer in greedy.answers] == [names[int(expected.argmax())]]
    assert greedy.shares is None


def test_choosing_is_learnt_by_its_exact_reward(base, factors, tmp_path):
    """The right choice, unlikely at first, is the likeliest one at the end."""
    asked = [choosing(str(number)) for number in range(4)]
    right = continuations(base, asked[0])[1]

    def reward(examples, answers):
        return [1.0 if list(answer.ids) == right else -1.0 for answer in answers]

    draw = chosen(base, "sum", compute=COMPUTE, temperature=1.0, penalised=True)
    targets = Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)
    changes = {"steps": 20, "batch": 2, "learning_rate": 0.05, "kl_coefficients": [0.01], "validate_every": 20}
    _, curve = reinforce.train(
        base,
        lambda: SvfLearner(factors, targets, torch.Generator().manual_seed(0)),
        reinforce.Questions(asked, asked, draw, reward),
        compute=COMPUTE,
        training=Training(settings(**changes), seed=0, checkpoints=Checkpoints(tmp_path)),
    )
    assert curve[-1]["right"] > curve[1]["right"] + 0.2 and curve[-1]["kl"] > 0
    assert "mixed" not in curve[1]  # which says something of samples alone


def test_only_prompts_that_are_answered_right_at_some_times_are_learnt_from(base, factors, tmp_path):
    targets = Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)
    asked = questions(base)
    learner = SvfLearner(factors, targets, torch.Generator().manual_seed(0))
    calls = []

    def kept(checkpoints, reward):
        counted = replace(asked, reward=lambda *given: calls.append(1) or reward(*given))
        screen = Screen(prompts=12)
        return teaching(base, learner, counted, screen, seed=0, checkpoints=checkpoints).train

    def rare(examples, answers):
        return [1.0 if answer.ids[0] % 7 == 0 else -1.0 for answer in answers]

    mixed = kept(Checkpoints(tmp_path / "a"), rare)
    draw = asked.draw(Attachment(), asked.train[:12], torch.Generator().manual_seed(500_009))
    expected = [len({answer.ids[0] % 7 == 0 for answer in drawn.answers}) == 2 for drawn in draw]
    assert mixed == [example for example, both in zip(asked.train, expected, strict=False) if both]
    assert 0 < len(mixed) < 12
    before = len(calls)
    assert kept(Checkpoints(tmp_path / "a"), rare) == mixed and len(calls) == before  # nothing is asked again
    with pytest.raises(UserError, match="expected a prompt that is answered right at some times, got none in 12"):
        kept(Checkpoints(tmp_path / "b"), lambda examples, answers: [-1.0] * len(answers))
