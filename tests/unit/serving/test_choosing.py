"""What options make of logits: against the definitions, and without touching what others ask for."""

import pytest
import torch

from pipeline.model.decoding.sampling import sample
from pipeline.serving.choosing import Options, Weighed, nucleus, penalised, weighed, weighed_prompt

VOCABULARY = 600  # more than one block of the sampler
TEMPERATURE = torch.ones(4, dtype=torch.float64)


def options(**named) -> Options:
    return Options(max_new_tokens=9, **named)


@pytest.fixture
def logits():
    return torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.9])
def test_the_nucleus_is_the_smallest_set_of_likeliest_tokens_that_reaches_its_share(logits, top_p, temperature):
    kept = nucleus(logits, TEMPERATURE * temperature, [top_p] * 4).isfinite()
    for probabilities, inside in zip((logits.double() / temperature).softmax(1), kept, strict=True):
        size = int(inside.sum())
        ordered = probabilities.sort(descending=True).values
        assert probabilities[inside].min() >= probabilities[~inside].max()
        assert float(ordered[:size].sum()) >= top_p - 1e-6
        assert size == 1 or float(ordered[: size - 1].sum()) < top_p + 1e-6


def test_rows_without_a_nucleus_are_as_they_were(logits):
    cut = nucleus(logits, TEMPERATURE, [1.0, 0.5, 1.0, 1.0])
    assert torch.equal(cut[[0, 2, 3]], logits[[0, 2, 3]])
    assert not torch.equal(cut[1], logits[1])
    assert nucleus(logits, TEMPERATURE, [1.0] * 4) is logits


def test_a_row_s_nucleus_is_its_own(logits):
    temperature = torch.tensor([0.3, 1.0, 1.5, 2.0], dtype=torch.float64)
    top_p = [0.9, 1.0, 0.3, 0.5]
    together = nucleus(logits, temperature, top_p)
    for row in range(4):
        alone = nucleus(logits[[row]], temperature[[row]], top_p[row : row + 1])
        assert torch.equal(together[[row]], alone)


def test_what_is_outside_of_the_nucleus_is_never_drawn():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    uniform = torch.linspace(0, 1, 101)[:-1]
    inside = nucleus(logits, torch.ones(1), [0.75]).expand(len(uniform), -1)
    assert set(sample(inside, uniform, 1.0)[0].tolist()) == {0, 1}


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-20, 1e-6])
def test_near_temperature_0_the_nucleus_holds_the_likeliest_token_alone(logits, temperature):
    inside = nucleus(logits, TEMPERATURE * temperature, [0.9] * 4)
    drawn, _ = sample(inside, torch.tensor([0.0, 0.3, 0.6, 0.99]), TEMPERATURE * temperature)
    assert torch.equal(drawn, logits.argmax(1))


def test_penalties_are_taken_off_by_count_and_by_presence():
    logits = torch.tensor([[5.0, 4.0, 3.0, 0.0]]).expand(4, -1)
    shaped = penalised(
        logits,
        [options(), options(presence_penalty=1.5), options(frequency_penalty=1.2), options(presence_penalty=-2.0)],
        [[0, 0], [0, 0], [0, 0, 1], []],
    )
    expected = [[5.0, 4.0, 3.0, 0.0], [3.5, 4.0, 3.0, 0.0], [2.6, 2.8, 3.0, 0.0], [5.0, 4.0, 3.0, 0.0]]
    torch.testing.assert_close(shaped, torch.tensor(expected))
    both = options(presence_penalty=-2.0, frequency_penalty=-2.0)
    assert penalised(logits[:1], [both], [[3, 3]])[0].tolist() == [5.0, 4.0, 3.0, 6.0]
    assert logits[0].tolist() == [5.0, 4.0, 3.0, 0.0]


def test_without_penalties_logits_are_as_they_were(logits):
    assert penalised(logits, [options(temperature=1.0)] * 4, [[1, 2]] * 4) is logits
    assert penalised(logits, [options(presence_penalty=1.0)] * 4, [[]] * 4) is logits


def test_log_probabilities_are_of_the_logits_and_name_the_likeliest(logits):
    expected = logits.log_softmax(1)
    for number, token in enumerate(weighed(logits, [7, 8, 9, 10], 3)):
        assert token.id == number + 7
        assert token.logprob == pytest.approx(float(expected[number, number + 7]), abs=1e-5)
        values, ids = expected[number].topk(3)
        assert [id_ for id_, _ in token.likeliest] == ids.tolist()
        assert [value for _, value in token.likeliest] == pytest.approx(values.tolist(), abs=1e-5)
    (greediest,) = weighed(logits[:1], [int(logits[0].argmax())], 1)
    assert greediest.logprob == greediest.likeliest[0][1]
    assert weighed(logits[:1], [7], 0)[0].likeliest == ()


def test_a_prompt_is_weighed_by_the_state_before_each_token():
    draw = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, VOCABULARY, bias=False)
    torch.nn.init.normal_(head.weight, generator=draw)
    states, ids = torch.randn(150, 8, generator=draw), torch.randint(VOCABULARY, (150,), generator=draw).tolist()
    with torch.no_grad():
        tokens = weighed_prompt(states, head, ids, 2)
        expected = head(states).log_softmax(1)
    assert tokens[0] == Weighed(ids[0], None, (), prompt=True)
    assert [token.id for token in tokens] == ids
    for place, token in enumerate(tokens[1:], start=1):
        assert token.prompt
        assert token.logprob == pytest.approx(float(expected[place - 1, ids[place]]), abs=1e-4)
