"""Each row's next token, under its own options: against the definitions, and against what the others ask for."""

from dataclasses import dataclass, field

import pytest
import torch

from pipeline.model.decoding.sampling import greedy, sample
from pipeline.serving.choosing import Options, Weighed, choose, nucleus, weighed, weighed_prompt

VOCABULARY = 600  # more than one block of the sampler


@dataclass
class Row:
    """What a job of the engine says of itself."""

    options: Options
    ids: list[int] = field(default_factory=list)
    number: int = 0

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.number)


def row(number: int = 0, ids: tuple[int, ...] = (), **options) -> Row:
    return Row(Options(max_new_tokens=9, **options), [*ids], number)


@pytest.fixture
def logits():
    return torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 3


def test_without_options_the_likeliest_token_is_taken(logits):
    assert torch.equal(choose(logits, [row() for _ in logits]), greedy(logits)[0])


def test_plain_draws_are_the_sampler_s_own(logits):
    temperatures = torch.tensor([0.5, 0.7, 1.0, 1.9])
    rows = [row(number, temperature=float(value)) for number, value in enumerate(temperatures)]
    uniform = torch.cat([torch.rand(1, generator=torch.Generator().manual_seed(number)) for number in range(4)])
    assert torch.equal(choose(logits, rows), sample(logits / temperatures[:, None], uniform, 1.0)[0])


def test_a_row_is_drawn_as_it_is_alone(logits):
    def rows():
        return [
            row(0, temperature=1.0, top_p=0.5),
            row(1),
            row(2, ids=(3, 3, 5), temperature=1.3, frequency_penalty=1.0),
            row(3, ids=(9,), presence_penalty=2.0),
        ]

    together = choose(logits, rows())
    alone = [choose(logits[[number]], [own]) for number, own in enumerate(rows())]
    assert together.tolist() == [int(ids) for ids in alone]


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 1e-38, 1e-20, 1e-6])
def test_a_temperature_near_zero_takes_the_likeliest_token(logits, temperature):
    rows = [row(number, temperature=temperature) for number in range(4)]
    assert torch.equal(choose(logits, rows), logits.argmax(1))
    rows = [row(number, temperature=temperature, top_p=0.9) for number in range(4)]
    assert torch.equal(choose(logits, rows), logits.argmax(1))


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_the_nucleus_is_the_smallest_set_of_likeliest_tokens_that_reaches_its_share(logits, top_p):
    kept = nucleus(logits, torch.full((4,), top_p)).isfinite()
    for probabilities, inside in zip(logits.double().softmax(1), kept, strict=True):
        size = int(inside.sum())
        ordered = probabilities.sort(descending=True).values
        assert probabilities[inside].min() >= probabilities[~inside].max()
        assert float(ordered[:size].sum()) >= top_p - 1e-6
        assert size == 1 or float(ordered[: size - 1].sum()) < top_p + 1e-6


def test_rows_without_a_nucleus_are_as_they_were(logits):
    cut = nucleus(logits, torch.tensor([1.0, 0.5, 1.0, 1.0]))
    assert torch.equal(cut[[0, 2, 3]], logits[[0, 2, 3]])
    assert not torch.equal(cut[1], logits[1])
    assert nucleus(logits, torch.ones(4)) is logits


def test_what_is_outside_of_the_nucleus_is_never_drawn():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(1, 4)
    draws = {int(choose(logits, [row(number, temperature=1.0, top_p=0.75)])) for number in range(200)}
    assert draws == {0, 1}


def test_penalties_are_taken_off_by_count_and_by_presence():
    logits = torch.tensor([[5.0, 4.0, 3.0, 0.0]])
    assert int(choose(logits, [row(ids=(0,), presence_penalty=1.5)])) == 1
    assert int(choose(logits, [row(ids=(0, 0, 1), frequency_penalty=1.2)])) == 2
    assert int(choose(logits, [row(ids=(3,), presence_penalty=-2.0, frequency_penalty=-2.0)])) == 0
    assert int(choose(logits, [row(ids=(3, 3), presence_penalty=-2.0, frequency_penalty=-2.0)])) == 3
    assert torch.equal(logits, torch.tensor([[5.0, 4.0, 3.0, 0.0]]))


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
