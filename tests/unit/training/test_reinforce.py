"""REINFORCE: its gradient on a bandit, its advantages, and going on after a kill."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.methods.svf import SvfLearner, Targets
from pipeline.model.decoding.batch import Answer
from pipeline.model.forward.adapters import Attachment
from pipeline.training import reinforce
from pipeline.training.loop import Training
from tests.tiny import MODULES, REINFORCE, same_tensors, tiny_base, tiny_compute, tiny_factors

COMPUTE = tiny_compute(200, 2000)


def settings(**changes) -> reinforce.Reinforce:
    return reinforce.Reinforce.parse({**REINFORCE, "steps": 4, "batch": 3, **changes}, "reinforce")


class BanditModel(nn.Module):
    """A language model of one decision: whatever the prompt, the logits of the next token are those of the learner."""

    def __init__(self, arms: int) -> None:
        super().__init__()
        self.head = nn.Linear(arms, arms, bias=False)
        self.head.weight.data = torch.eye(arms)
        self.head.requires_grad_(False)
        self.state = [torch.zeros(arms)]  # in a list: a module would take a parameter for its own

    def get_decoder(self):
        return lambda input_ids, **_: SimpleNamespace(last_hidden_state=self.state[0].expand(*input_ids.shape, -1))

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
    base = SimpleNamespace(model=model, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    rollouts = []
    for number in range(3000):
        arms = torch.multinomial(p, 8, replacement=True, generator=generator)
        answers = [Answer((int(arm),), (float(p[arm].log()),), True) for arm in arms]
        rollouts.append(reinforce.Rollout(Example(str(number), (), ""), [0], answers, reward[arms]))
    reinforce.loss_and_gradient(
        base, learner, rollouts, settings=settings(), advantage=estimator, kl_coefficient=0.3, compute=COMPUTE
    )
    torch.testing.assert_close(learner.theta.grad, analytic, atol=0.015, rtol=0)


def test_with_all_answers_listed_the_gradient_on_a_bandit_is_exact():
    theta = torch.tensor([0.2, -9.0, 0.7])
    reward = torch.tensor([-1.0, 1.0, -1.0])  # for what sampling would never try
    p = theta.softmax(0)
    learner = BanditLearner(theta)
    base = SimpleNamespace(model=BanditModel(3), device=torch.device("cpu"))
    answers = [Answer((arm,), (), True, probability=float(p[arm])) for arm in range(3)]
    rollouts = [reinforce.Rollout(Example("0", (), ""), [0], answers, reward, p)] * 2
    reinforce.loss_and_gradient(
        base, learner, rollouts, settings=settings(), advantage="exact", kl_coefficient=0.0, compute=COMPUTE
    )
    torch.testing.assert_close(learner.theta.grad, -p * (reward - (p * reward).sum()), atol=1e-7, rtol=1e-4)


def test_an_exact_gradient_of_samples_is_refused():
    sampled = reinforce.Rollout(Example("0", (), ""), [0], [Answer((1,), (0.0,), True)], torch.ones(1))
    with pytest.raises(ValueError, match="can't be exact"):
        sampled.weights("exact")


def test_leave_one_out_is_the_reward_less_the_mean_of_the_others():
    rewards = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0])
    expected = [float(r - (rewards.sum() - r) / 4) for r in rewards]
    assert reinforce.advantages(rewards, "rloo").tolist() == pytest.approx(expected)
    assert torch.equal(reinforce.advantages(rewards, "none"), rewards)
    assert reinforce.advantages(rewards, "grpo").mean().abs() < 1e-6
    assert reinforce.advantages(torch.ones(4), "rloo").abs().max() == 0
    assert reinforce.advantages(torch.ones(4), "grpo").abs().max() == 0


def examples(prefix: str, count: int) -> list[Example]:
    return [Example(f"{prefix}{i}", ({"role": "user", "content": f"{prefix}{i * 7}"},), "x") for i in range(count)]


def even_first(asked, answers):
    """Rewards answers whose first token is even: learnable, and known without a task."""
    return [1.0 if int(answer.split()[0]) % 2 == 0 else -1.0 for answer in answers]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture(scope="module")
def factors(base, tmp_path_factory):
    return tiny_factors(base.model, tmp_path_factory.mktemp("svd"))


def questions(base, reward=even_first, validation_examples: int = 4) -> reinforce.Questions:
    draw = reinforce.written(base, compute=COMPUTE, max_new_tokens=3, samples=4, temperature=1.0)
    return reinforce.Questions(examples("t", 20), examples("v", validation_examples), draw, reward, "rloo")


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
    rows = [{"step": 0, "train": None}, {"step": 1, "train": -1.0}, {"step": 2, "train": 0.0}]
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


def test_answers_chosen_among_a_few_are_listed_with_their_shares(base):
    names = [[5, 2], [6, 7, 2], [8, 2]]
    draw = reinforce.chosen_among(base, names, compute=COMPUTE, temperature=2.0)
    (listed,) = draw(Attachment(), [[1, 20, 30]], torch.Generator())
    likelihood = torch.zeros(3)
    for k, name in enumerate(names):
        logits = base.model(input_ids=torch.tensor([[1, 20, 30, *name]])).logits[0].log_softmax(-1)
        likelihood[k] = logits[2:-1].gather(1, torch.tensor(name)[:, None]).sum()
    assert [list(answer.ids) for answer in listed] == names
    assert [answer.probability for answer in listed] == pytest.approx((likelihood / 2).softmax(0).tolist(), abs=1e-5)
    (most_likely,) = draw(Attachment(), [[1, 20, 30]], None)[0]
    assert list(most_likely.ids) == names[int(likelihood.argmax())]
