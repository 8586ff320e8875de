"""Packed sequences and chunked losses against the slow, obvious way."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from pipeline.methods import reft, svf
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import decoder
from pipeline.model.forward.lm_head import LmHead
from pipeline.model.forward.logprobs import Penalty, policy_objective, token_logprobs
from pipeline.training.layout import STARTING, Group, lay_out, token_batches
from pipeline.training.packing import answer_hidden, pack, packed_batches
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
        values = of_answers(base, hidden, packed)
        expected = [alone(base, groups[index].prompt, answer) for index in batch for answer in groups[index].answers]
        assert values.tolist() == pytest.approx(expected, abs=1e-4)


RAGGED = [
    Group(
        [50, 51, 52, place],
        [[5 + (7 * number + at) % 50 for at in range(length)] for number, length in enumerate(lengths)],
    )
    for place, lengths in enumerate([(40, 3, 9, 12, 2), (7, 8, 9, 10, 30), (1, 1, 35, 2, 3)])
]


@torch.no_grad()
def test_ragged_answers_share_rows_without_seeing_each_other(base):
    ((batch, packed),) = packed_batches(RAGGED, Attachment(), batch_tokens=10_000, device=base.device)
    rows = len(packed.rests.ids) + (0 if packed.others is None else len(packed.others.ids))
    assert rows < packed.answers
    hidden = answer_hidden(decoder(base.model), packed, Attachment())
    values = of_answers(base, hidden, packed)
    expected = [alone(base, RAGGED[index].prompt, answer) for index in batch for answer in RAGGED[index].answers]
    assert values.tolist() == pytest.approx(expected, abs=1e-4)


def of_answers(base, hidden, packed):
    """The log-likelihood of each answer of a batch."""
    logprobs = token_logprobs(hidden[packed.state], base.lm_head, packed.target)[0]
    return torch.zeros(packed.answers).index_add_(0, packed.answer, logprobs)


# Samples of a policy: some begin alike, some are the same, some end where others go on, one is a single token.
BRANCHING = [
    Group([50, 51, 52], [[5, 6, 7, 8, 9], [5, 6, 7, 1, 1, 1, 2], [5, 6, 7, 8, 9], [5, 6], [4], [5, 6, 7, 8, 3, 3]]),
    Group([50, 51, 52, 53, 54], [[9, 8, 7], [9, 8, 6], [7, 7, 7, 7], [7, 7, 7, 8]]),
    Group([50, 51, 52, 9], [[3, 3], [3, 3], [3, 3]]),
]


@torch.no_grad()
@pytest.mark.parametrize("batch_tokens", [20, 10_000])
def test_answers_that_begin_alike_are_a_tree_and_have_the_likelihood_they_have_alone(base, batch_tokens):
    for batch, packed in packed_batches(BRANCHING, Attachment(), batch_tokens=batch_tokens, device=base.device):
        hidden = answer_hidden(decoder(base.model), packed, Attachment())
        expected = [
            alone(base, BRANCHING[place].prompt, answer) for place in batch for answer in BRANCHING[place].answers
        ]
        assert of_answers(base, hidden, packed).tolist() == pytest.approx(expected, abs=1e-4)


def test_what_answers_have_in_common_is_computed_once(base):
    for group in BRANCHING:
        ((_, packed),) = packed_batches([group], Attachment(), batch_tokens=10_000, device=base.device)
        begun = {tuple(answer[:length]) for answer in group.answers for length in range(len(answer))}
        assert len(packed.states) == len(begun)  # the empty one is the prompt's
        passes = [packed.rests] if packed.others is None else [packed.rests, packed.others]
        assert sum(int((rows.ids > 0).sum()) for rows in passes) == len(group.prompt) + len(begun) - 1  # 0: padding


@given(
    answers=st.lists(st.lists(st.integers(5, 7), min_size=1, max_size=6), min_size=1, max_size=8),
    more=st.lists(st.lists(st.integers(5, 7), min_size=1, max_size=9), min_size=1, max_size=3),
    shared=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
def test_every_token_sees_its_prompt_and_what_its_answer_has_before_it(answers, more, shared):
    groups = [Group([40, 41, 42], answers), Group([40, 41, 43, 44, 45], more)]
    packed = pack(groups, device=torch.device("cpu"), shared=shared, heads=[0, 0] if shared else ())
    passes = [packed.rests] if packed.others is None else [packed.rests, packed.others]
    ids = torch.cat([rows.ids.flatten() for rows in passes])
    positions = torch.cat([rows.positions.flatten() for rows in passes])

    def seen(state: int) -> list[tuple[int, int]]:
        """(position, id) of everything that a state is computed from."""
        rows, offset = (packed.rests, 0)
        if state >= packed.rests.ids.numel():
            rows, offset = packed.others, packed.rests.ids.numel()
        row, column = divmod(state - offset, rows.ids.shape[1])
        mask = rows.mask[row, 0, column]
        back = int(rows.back[row])
        before = list(enumerate(groups[0].prompt[:shared]))
        if offset:
            width = packed.rests.ids.shape[1]
            before += [(int(packed.rests.positions[back, at]), int(packed.rests.ids[back, at])) for at in range(width)]
        here = [(int(rows.positions[row, at]), int(rows.ids[row, at])) for at in range(rows.ids.shape[1])]
        return sorted(entry for entry, sees in zip(before + here, mask.tolist(), strict=True) if sees)

    token = 0
    for group in groups:
        for answer in group.answers:
            for length, target in enumerate(answer):
                state = int(packed.states[packed.state[token]])
                expected = [*group.prompt, *answer[:length]]
                assert seen(state) == list(enumerate(expected)) and int(packed.target[token]) == target
                assert (int(positions[state]), int(ids[state])) == (len(expected) - 1, expected[-1])
                token += 1
    assert token == len(packed.target)


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


@pytest.mark.parametrize("estimator", ["full", "k3"])
def test_a_tree_has_the_gradient_of_its_answers_alone(base, estimator, tmp_path):
    targets = svf.Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)
    learner = svf.SvfLearner(tiny_factors(base.model, tmp_path), targets, torch.Generator())
    weights = {0: torch.linspace(-1, 2, 6), 1: torch.linspace(1, -1, 4), 2: torch.tensor([0.5, 0.0, -2.0])}
    apart = [
        (Group(group.prompt, [answer]), weights[place][number : number + 1])
        for place, group in enumerate(BRANCHING)
        for number, answer in enumerate(group.answers)
    ]
    gradients = []
    with torch.no_grad():  # away from the base model: there the KL has no gradient
        learner.flat.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    for groups in (list(zip(BRANCHING, weights.values(), strict=True)), apart):
        batches = list(
            packed_batches([group for group, _ in groups], Attachment(), batch_tokens=60, device=base.device)
        )
        for batch, packed in batches:
            with torch.no_grad():
                reference = answer_hidden(decoder(base.model), packed, Attachment())
            with learner.learning(base.model) as attachment:
                policy_objective(
                    answer_hidden(decoder(base.model), packed, attachment),
                    base.lm_head,
                    packed.target,
                    packed.state,
                    advantage=torch.cat([groups[index][1] for index in batch])[packed.answer],
                    penalty=Penalty(reference, 0.3, estimator),
                ).loss.backward()
        gradients.append(learner.flat.grad.clone())
        learner.flat.grad = None
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["svf", "reft"])
def test_sharing_beginnings_changes_no_gradient(base, kind, tmp_path):
    if kind == "svf":
        targets = svf.Targets(modules=MODULES, parametrisation="direct", init_mean=0.1, init_std=0.01)
        learner = svf.SvfLearner(tiny_factors(base.model, tmp_path), targets, torch.Generator())
    else:
        chosen = reft.Settings(formula="loreft", rank=2, layers="all", positions="f2+l2", tied=False, initial="random")
        learner = reft.initial(base.model, chosen, torch.Generator().manual_seed(0))
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
    for gradient, reference in zip(*gradients, strict=True):
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(gradient, reference, atol=1e-3, rtol=1e-4)


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


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=7), shared=st.integers(0, 20), budget=st.integers(1, 200)
)
def test_batches_are_cut_where_it_costs_least(sizes, shared, budget):
    groups = [Group([5] * (shared + size), [[2]]) for size in sizes]
    batches = list(token_batches(groups, shared, budget))
    ordered = sorted(sizes, reverse=True)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))

    def cost(lengths):
        """Of the sizes in order, cut into so many; None where one exceeds the budget."""
        total, begin = 0, 0
        for length in lengths:
            tokens = length * ordered[begin]
            if length > 1 and tokens > budget:
                return None
            total, begin = total + STARTING + shared + tokens, begin + length
        return total

    def cuttings(left):
        yield from ([first, *rest] for first in range(1, left + 1) for rest in (cuttings(left - first)))
        if left == 0:
            yield []

    assert cost([len(batch) for batch in batches]) == min(
        found for cutting in cuttings(len(sizes)) if (found := cost(cutting)) is not None
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(
    ("bias", "scale", "cap"), [(False, 1.0, None), (True, 1.0, None), (False, 0.25, None), (True, 2.0, 3.0)]
)
@pytest.mark.parametrize("estimator", ["full", "k3"])
def test_the_fused_gradient_equals_autograd(base, estimator, bias, scale, cap, temperature):
    generator = torch.Generator().manual_seed(0)
    hidden = (0.4 * torch.randn(150, 32, generator=generator)).requires_grad_(True)
    reference = 0.4 * torch.randn(150, 32, generator=generator)
    state = torch.randint(0, 150, (200,), generator=generator)  # some predict several tokens, some none
    target = torch.randint(0, 61, (200,), generator=generator)
    advantage = torch.randn(200, generator=generator)
    module = torch.nn.Linear(32, 61, bias=bias).requires_grad_(False)
    module.weight.copy_(torch.randn(61, 32, generator=generator))
    objective = policy_objective(
        hidden,
        LmHead(module, scale, cap),
        target,
        state,
        advantage=advantage,
        penalty=Penalty(reference, 0.3, estimator),
        temperature=temperature,
    )
    (2 * objective.loss).backward()
    found = hidden.grad.clone()
    hidden.grad = None

    def log_softmax(states):
        logits = module(states) * scale
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        return (logits / temperature).log_softmax(-1)

    log_p, log_q = log_softmax(hidden), log_softmax(reference)
    p_token, q_token = (log[state, target] for log in (log_p, log_q))
    if estimator == "full":
        kl = (log_p.exp() * (log_p - log_q)).sum(1)[state]
    else:
        kl = (q_token - p_token).exp() - 1 - (q_token - p_token)
    loss = (-advantage * p_token).sum() + 0.3 * kl.sum()
    (2 * loss).backward()
    torch.testing.assert_close(objective.loss, loss, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(objective.kl, kl, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(objective.logprobs, p_token, rtol=1e-4, atol=1e-4)
    entropy = -(log_p.exp() * log_p).sum(1)[state]
    torch.testing.assert_close(objective.entropy, entropy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, hidden.grad, rtol=1e-3, atol=1e-3)


def test_kl_is_zero_at_equality_and_has_the_stated_direction(base):
    generator = torch.Generator().manual_seed(0)
    hidden, other = torch.randn(2, 20, 32, generator=generator)
    target = torch.zeros(20, dtype=torch.long)

    def kl(policy, reference):
        return policy_objective(
            policy,
            base.lm_head,
            target,
            torch.arange(20),
            advantage=torch.zeros(20),
            penalty=Penalty(reference, 1.0, "full"),
        ).kl

    torch.testing.assert_close(kl(hidden, hidden), torch.zeros(20), atol=1e-5, rtol=0)
    policy, base_model = (
        torch.distributions.Categorical(logits=states @ base.lm_head.weight.T) for states in (hidden, other)
    )
    expected = torch.distributions.kl_divergence(policy, base_model)  # KL(π ‖ π_base)
    torch.testing.assert_close(kl(hidden, other), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(kl(other, hidden), expected, rtol=0.05)
