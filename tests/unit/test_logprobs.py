"""Packed sequences and chunked losses against the slow, obvious way."""

import pytest
import torch

from pipeline.core.adapters import Attachment
from pipeline.core.logprobs import head_weight, policy_objective, token_logprobs
from pipeline.core.models import decoder
from pipeline.core.packing import Group, answer_hidden, lay_out, packed_batches
from pipeline.methods import reft, svf
from tests.tiny import MODULES, tiny_base, tiny_factors

GROUPS = [
    Group([5, 6, 7, 8], [[9, 10, 2], [11, 2], [12, 13, 14, 15]]),
    Group([20], [[21], [22, 23]]),
    Group([30, 31, 32, 33, 34, 35, 36], [[37, 2]]),
]


@pytest.fixture(scope="module")
def base():
    return tiny_base()


BEGINNING = [40, 41, 42, 43, 44, 45]
OTHER = [50, 51, 52, 53, 54, 55]
WITH_BEGINNINGS = [Group([*BEGINNING, *group.prompt], group.answers) for group in GROUPS] + [
    Group([*OTHER, *group.prompt], group.answers) for group in GROUPS
]


class Apart(Attachment):
    """Nothing may be shared."""

    def alike(self, rows):
        return None


@torch.no_grad()
@pytest.mark.parametrize("attachment", [Attachment(), Apart()])
@pytest.mark.parametrize("groups", [GROUPS, WITH_BEGINNINGS])
def test_packed_answers_have_the_likelihood_they_have_alone(base, groups, attachment):
    for batch, packed in packed_batches(groups, attachment, batch_tokens=24, device=base.device):
        hidden = answer_hidden(decoder(base.model), packed, attachment)
        values = torch.zeros(packed.answers).index_add_(
            0, packed.answer, token_logprobs(hidden, head_weight(base.model), packed.target)[0]
        )
        expected = [alone(base, groups[index].prompt, answer) for index in batch for answer in groups[index].answers]
        assert values.tolist() == pytest.approx(expected, abs=1e-4)


RAGGED = [
    Group([50, 51, 52, place], [list(range(5, 5 + length)) for length in lengths])
    for place, lengths in enumerate([(40, 3, 9, 12, 2), (7, 8, 9, 10, 30), (1, 1, 35, 2, 3)])
]


@torch.no_grad()
def test_ragged_answers_share_rows_without_seeing_each_other(base):
    ((batch, packed),) = packed_batches(RAGGED, Attachment(), batch_tokens=10_000, device=base.device)
    rows = len(packed.rests.ids) + (0 if packed.others is None else len(packed.others.ids))
    assert rows < packed.answers
    hidden = answer_hidden(decoder(base.model), packed, Attachment())
    logprobs = token_logprobs(hidden, head_weight(base.model), packed.target)[0]
    values = torch.zeros(packed.answers).index_add_(0, packed.answer, logprobs)
    expected = [alone(base, RAGGED[index].prompt, answer) for index in batch for answer in RAGGED[index].answers]
    assert values.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_layout_holds_every_answer_once_within_its_tokens():
    layout = lay_out(RAGGED, 3)
    held = [(place, number) for place, numbers in enumerate(layout.first) for number in numbers]
    held += [(place, number) for place, numbers in layout.others for number in numbers]
    assert sorted(held) == [(place, number) for place in range(3) for number in range(5)]
    padded_alone = 3 * (1 + 39) + 12 * 34
    assert sum(len(answer) - 1 for group in RAGGED for answer in group.answers) < layout.tokens < padded_alone


def test_a_beginning_is_computed_once_for_all_prompts_that_have_it(base):
    sizes = {}
    for attachment in (Attachment(), Apart()):
        ((_, packed),) = packed_batches(WITH_BEGINNINGS, attachment, batch_tokens=1000, device=base.device)
        sizes[type(attachment)] = packed.rests.ids.shape[1]
        assert packed.shared == (6 if type(attachment) is Attachment else 0)
    assert packed.beginnings is None and sizes[Attachment] == sizes[Apart] - 6


@pytest.mark.parametrize("kind", ["svf", "reft"])
def test_sharing_beginnings_changes_no_gradient(base, kind, tmp_path):
    if kind == "svf":
        targets = svf.Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)
        learner = svf.SvfLearner(tiny_factors(base.model, tmp_path), targets, torch.Generator())
    else:
        settings = reft.Settings(
            formula="loreft", rank=2, layers="all", positions="f2+l2", tied=False, initial="random"
        )
        learner = reft.initial(base.model, settings, torch.Generator().manual_seed(0))
    gradients = []
    for share in (True, False):
        with learner.learning(base.model) as attachment:
            if not share:
                attachment.alike = lambda rows: None
            batches = list(packed_batches(WITH_BEGINNINGS, attachment, batch_tokens=60, device=base.device))
        for _, packed in batches:
            assert bool(packed.shared) == share
            with learner.learning(base.model) as attachment:
                states = answer_hidden(decoder(base.model), packed, attachment)
                (states @ torch.linspace(-1, 1, 32)).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in learner.parameters()])
        for parameter in learner.parameters():
            parameter.grad = None
    for one, other in zip(*gradients, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def alone(base, prompt, answer) -> float:
    """The log-likelihood of one answer behind one prompt, the slow way."""
    logits = base.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    return float(logits[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None]).sum())


def test_batches_keep_to_the_budget_and_lose_nothing(base):
    groups = [
        Group([1] * length, [[2] * 3, [2] * (length % 5 + 1)][: 1 + length % 2]) for length in (3, 50, 7, 7, 20, 9)
    ]
    batches = list(packed_batches(groups, Apart(), batch_tokens=32, device=base.device))
    assert sorted(index for batch, _ in batches for index in batch) == list(range(6))
    for batch, packed in batches:
        tokens = packed.rests.ids.numel() + (packed.others.ids.numel() if packed.others else 0)
        assert len(batch) == 1 or tokens <= 32


@pytest.mark.parametrize("estimator", ["full", "k3"])
def test_the_fused_gradient_equals_autograd(base, estimator):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(150, 32, generator=generator, requires_grad=True)
    reference = torch.randn(150, 32, generator=generator)
    target = torch.randint(0, 61, (150,), generator=generator)
    advantage = torch.randn(150, generator=generator)
    weight = head_weight(base.model)
    objective = policy_objective(
        hidden,
        weight,
        target,
        advantage=advantage,
        reference=reference,
        kl_coefficient=0.3,
        kl_estimator=estimator,
    )
    (2 * objective.loss).backward()
    found = hidden.grad.clone()
    hidden.grad = None
    log_p, log_q = (hidden @ weight.T).log_softmax(-1), (reference @ weight.T).log_softmax(-1)
    p_token, q_token = (log.gather(1, target[:, None]).squeeze(1) for log in (log_p, log_q))
    if estimator == "full":
        kl = (log_p.exp() * (log_p - log_q)).sum(1)
    else:
        kl = (q_token - p_token).exp() - 1 - (q_token - p_token)
    loss = (-advantage * p_token).sum() + 0.3 * kl.sum()
    (2 * loss).backward()
    torch.testing.assert_close(objective.loss, loss, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(objective.kl, kl, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, hidden.grad, rtol=1e-3, atol=1e-3)


def test_kl_is_zero_at_equality_and_has_the_stated_direction(base):
    generator = torch.Generator().manual_seed(0)
    hidden, other = torch.randn(2, 20, 32, generator=generator)
    weight, target = head_weight(base.model), torch.zeros(20, dtype=torch.long)

    def kl(policy, reference):
        return policy_objective(
            policy,
            weight,
            target,
            advantage=torch.zeros(20),
            reference=reference,
            kl_coefficient=1.0,
            kl_estimator="full",
        ).kl

    torch.testing.assert_close(kl(hidden, hidden), torch.zeros(20), atol=1e-5, rtol=0)
    policy, base_model = (torch.distributions.Categorical(logits=states @ weight.T) for states in (hidden, other))
    expected = torch.distributions.kl_divergence(policy, base_model)  # KL(π ‖ π_base)
    torch.testing.assert_close(kl(hidden, other), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(kl(other, hidden), expected, rtol=0.05)
