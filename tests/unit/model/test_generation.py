"""The decode loop against transformers' own, and its sampler against the distribution it claims to draw from."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.model.decoding import answer as answering
from pipeline.model.decoding.answer import KEEP, answer_and_weigh, generate
from pipeline.model.decoding.batch import Answer
from pipeline.model.decoding.sampling import Sampling, greedy, sample
from pipeline.model.decoding.weigh import weigh
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Adapted
from tests.tiny import END, tiny_base, tiny_compute

NARROW = tiny_compute(64, 400)  # several passes and batches


def draws(seed: int, *, samples: int = 1, temperature: float = 1.0) -> Sampling:
    return Sampling(generator=torch.Generator().manual_seed(seed), samples=samples, temperature=temperature)


@pytest.fixture(scope="module")
def base():
    return tiny_base(vocab=300)


def prompts(count: int, longest: int = 14) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, 300, (length,), generator=generator).tolist() for length in lengths]


def test_greedy_equals_transformers_token_for_token(base):
    asked = prompts(40)
    answers = generate(Adapted(base, NARROW), asked, max_new_tokens=12)
    for prompt, (answer,) in zip(asked, answers, strict=True):
        ids = torch.tensor([prompt])
        reference = base.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )[0, len(prompt) :].tolist()
        if END in reference:
            reference = reference[: reference.index(END) + 1]
        assert list(answer.ids) == reference
        assert answer.finished == (reference[-1] == END)


def test_answers_do_not_depend_on_how_rows_are_batched(base):
    asked = prompts(17)
    alone = generate(Adapted(base, tiny_compute(1, 1)), asked, max_new_tokens=8)
    together = generate(Adapted(base, tiny_compute()), asked, max_new_tokens=8)
    assert [a.ids for (a,) in alone] == [a.ids for (a,) in together]


def test_samples_do_not_depend_on_how_rows_are_batched(base):
    asked = prompts(9)

    def draw(compute):
        return generate(Adapted(base, compute), asked, max_new_tokens=6, sampling=draws(4, samples=3))

    small, large = draw(tiny_compute(20, 60)), draw(tiny_compute())
    assert [[a.ids for a in group] for group in small] == [[a.ids for a in group] for group in large]
    assert any(len({a.ids for a in group}) > 1 for group in small)


def test_samples_are_one_row_for_as_long_as_they_are_alike(base, monkeypatch):
    asked, computed = prompts(5), []
    advance = answering.advance

    def counted(*passed, ids, **named):
        computed.append(len(ids))
        return advance(*passed, ids=ids, **named)

    monkeypatch.setattr(answering, "advance", counted)
    sampling = draws(2, samples=8, temperature=0.3)
    answers = generate(Adapted(base, tiny_compute()), asked, max_new_tokens=7, sampling=sampling)
    alike = [
        len({(number, a.ids[:step]) for number, group in enumerate(answers) for a in group if len(a.ids) > step})
        for step in range(1, 7)
    ]
    assert len(asked) < alike[0] < alike[-1] < len(asked) * 8  # they part, early and late, and not all
    for rows, needed in zip(computed, alike, strict=True):
        assert needed <= rows <= needed / KEEP


def test_logprobs_of_the_loop_are_those_of_the_whole_sequence(base):
    asked = prompts(6)
    sampling = draws(1, samples=5, temperature=0.5)
    answers = generate(Adapted(base, NARROW), asked, max_new_tokens=6, sampling=sampling)
    for prompt, group in zip(asked, answers, strict=True):
        for answer in group:
            logits = base.model(input_ids=torch.tensor([[*prompt, *answer.ids]])).logits[0].float() / 0.5
            expected = (
                logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer.ids)[:, None]).squeeze(1)
            )
            torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=1e-4, rtol=0)


def test_an_answer_ends_with_the_end_of_sequence_token_or_at_the_limit(base):
    sampling = draws(3, samples=2, temperature=1.5)
    for group in generate(Adapted(base, NARROW), prompts(30), max_new_tokens=25, sampling=sampling):
        for answer in group:
            assert answer.finished == (answer.ids[-1] == END)
            assert END not in answer.ids[:-1]
            assert answer.finished or len(answer.ids) == 25


def test_sampled_frequencies_follow_the_distribution_by_a_chi_squared_test():
    from scipy.stats import chisquare

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 700, generator=generator) * 2
    draws = 20_000
    ids, logprob = sample(logits.expand(draws, -1), torch.rand(draws, generator=generator), 1.0)
    probability = logits[0].double().softmax(0)
    torch.testing.assert_close(logprob, logits[0].log_softmax(0)[ids], atol=1e-4, rtol=0)
    common = probability > 5 / draws  # cells expected at least five times; the rest is one cell
    counts = torch.bincount(ids, minlength=700).double()
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    expected = torch.cat([probability[common], probability[~common].sum()[None]]) * draws
    assert chisquare(observed.numpy(), (expected / expected.sum() * draws).numpy()).pvalue > 0.001


def test_sampling_at_the_ends_of_the_unit_interval_gives_possible_tokens():
    logits = torch.full((3, 600), -torch.inf)
    logits[:, [5, 300, 430]] = torch.tensor([0.0, 1.0, 0.5])
    ids, _ = sample(logits, torch.tensor([0.0, 0.5, 1 - 2**-24]), 1.0)
    assert ids.tolist() == [5, 300, 430]


TINY = [1e-20, 1e-38, 1e-40, 1e-44, 1e-46, 1e-100, 5e-324]  # the last ones are 0 in float32


@pytest.mark.parametrize("temperature", TINY)
@pytest.mark.parametrize("shift", [0.0, -50.0, 50.0])
def test_near_temperature_zero_a_sample_is_the_most_likely_token(temperature, shift):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 300, generator=draw) * 5 + shift
    logits[:, 7] = -torch.inf
    logits[0] -= logits[0].max()  # a row whose largest logit is 0
    uniform = torch.rand(64, generator=draw)
    likeliest, _ = greedy(logits)
    for given in (temperature, torch.full((64,), temperature, dtype=torch.float64)):
        ids, logprobs = sample(logits, uniform, given)
        assert torch.equal(ids, likeliest)
        assert torch.equal(logprobs, torch.zeros(64))


def test_near_temperature_zero_equal_logits_are_drawn_equally():
    logits = torch.zeros(1000, 300)
    logits[:, [3, 290]] = 9.0
    ids, logprobs = sample(logits, torch.rand(1000, generator=torch.Generator().manual_seed(0)), 1e-40)
    assert set(ids.tolist()) == {3, 290}
    assert 400 < int((ids == 3).sum()) < 600
    torch.testing.assert_close(logprobs, torch.full((1000,), 0.5).log())


def test_a_row_near_temperature_zero_changes_no_other_row():
    draw = torch.Generator().manual_seed(1)
    logits, uniform = torch.randn(4, 300, generator=draw), torch.rand(4, generator=draw)
    expected = sample(logits[1:], uniform[1:], torch.tensor([1.0, 0.7, 30.0], dtype=torch.float64))
    ids, logprobs = sample(logits, uniform, torch.tensor([1e-40, 1.0, 0.7, 30.0], dtype=torch.float64))
    assert torch.equal(ids[1:], expected[0])
    assert torch.equal(logprobs[1:], expected[1])
    for row, temperature in enumerate([1.0, 0.7, 30.0]):  # as the batch job gives it, one number for all rows
        alone = sample(logits[1 + row : 2 + row], uniform[1 + row : 2 + row], temperature)
        assert (int(alone[0]), float(alone[1])) == (int(expected[0][row]), float(expected[1][row]))


def test_very_hot_samples_are_uniform():
    logits = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)) * 20
    ids, _ = sample(logits, torch.rand(4000, generator=torch.Generator().manual_seed(1)), 1e300)
    assert torch.bincount(ids, minlength=8).min() > 400


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": float("inf")}, {"samples": 0}])
def test_draws_that_are_none_are_refused(settings):
    with pytest.raises(ValueError, match="expected a finite temperature above 0 and one sample or more"):
        Sampling(generator=torch.Generator(), **settings)


def test_answers_near_temperature_zero_are_the_greedy_ones(base):
    asked = prompts(9)
    adapted = Adapted(base, NARROW)
    greedily = generate(adapted, asked, max_new_tokens=6)
    cold = generate(adapted, asked, max_new_tokens=6, sampling=draws(0, samples=2, temperature=1e-40))
    assert [[answer.ids] * 2 for (answer,) in greedily] == [[answer.ids for answer in group] for group in cold]


def test_adapters_are_told_rows_and_prompts(base):
    told = []

    class Recorder(Attachment):
        def begin(self, rows, prompt_mask):
            told.append((rows.tolist(), None if prompt_mask is None else prompt_mask.sum(1).tolist()))

    asked = [[5, 6, 7], [8], [9, 10]]
    generate(Adapted(base, NARROW, Recorder()), asked, max_new_tokens=2, rows=[7, 8, 9])
    assert told[0] == ([7, 9, 8], [3, 2, 1])  # longest first
    assert told[1] == ([7, 9, 8], None)


BEGINNING = [11, 12, 13, 14, 15, 16]


class Grouped(Attachment):
    """Rows of the job that are alike by twos; notes the size of every pass over prompts."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, int]] = []

    def begin(self, rows, prompt_mask):
        if prompt_mask is not None:
            self.passes.append(tuple(prompt_mask.shape))

    def alike(self, rows):
        return [row // 2 for row in rows.tolist()]


class Apart(Grouped):
    """Nothing may be shared."""

    def alike(self, rows):
        return None


@pytest.mark.parametrize("samples", [1, 3])
def test_a_common_beginning_is_computed_once_for_rows_that_are_alike_and_changes_no_answer(base, samples):
    asked = [[*BEGINNING, *prompt] for prompt in prompts(10, longest=9)]

    def draw(attachment):
        adapted = Adapted(base, tiny_compute(1000), attachment)
        return generate(adapted, asked, max_new_tokens=7, sampling=draws(2, samples=samples))

    apart, together = Apart(), Grouped()
    alone, shared = draw(apart), draw(together)
    assert [[a.ids for a in group] for group in alone] == [[a.ids for a in group] for group in shared]
    assert apart.passes == [(10, max(map(len, asked)))]
    (groups, beginning), (rows, rest) = together.passes
    assert (groups, rows) == (5, 10) and beginning >= len(BEGINNING)
    assert rest == max(map(len, asked)) - beginning


@pytest.mark.parametrize("attachment", [Attachment, Grouped, Apart])
@pytest.mark.parametrize("batch_tokens", [8, 1000])
def test_continuations_weigh_what_they_weigh_alone(base, attachment, batch_tokens):
    asked = [[*BEGINNING, *prompt] for prompt in prompts(7, longest=5)]
    names = [[30, 31, END], [40], [50, 51, 52, END]]
    continuations = [names[: 1 + index % 3] for index in range(7)]
    compute = tiny_compute(batch_tokens, 10 * batch_tokens)
    weighed = weigh(Adapted(base, compute, attachment()), asked, continuations)
    for prompt, group, values in zip(asked, continuations, weighed, strict=True):
        for continuation, value in zip(group, values, strict=True):
            logits = base.model(input_ids=torch.tensor([[*prompt, *continuation]])).logits[0].float().log_softmax(-1)
            tokens = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(continuation)[:, None])
            assert value == pytest.approx(float(tokens.sum()), abs=1e-4)


DRAFTS = {
    "something else": lambda answer: [5, 6, END],
    "the answer": list,
    "its beginning": lambda answer: answer[:4],
    "its beginning, and an end": lambda answer: [*answer[:3], END],
    "its beginning, and something else": lambda answer: [*answer[:5], 7, 8, 9, END],
    "the answer, and more than is asked for": lambda answer: [*answer, 7, 8, 9, 10, 11, END],
}


@pytest.mark.parametrize("draft", DRAFTS)
def test_answering_and_weighing_together_gives_what_each_gives_alone(base, draft):
    asked = [[*BEGINNING, *prompt] for prompt in prompts(12)]
    endless = [answer.ids for (answer,) in generate(Adapted(base, NARROW), asked, max_new_tokens=9)]
    ends = frozenset([END, *(ids[3 + place % 4] for place, ids in enumerate(endless[:3]))])
    base = SimpleNamespace(**{**vars(base), "end_ids": ends})
    alone = [answer for (answer,) in generate(Adapted(base, tiny_compute(64, 150)), asked, max_new_tokens=9)]
    assert {answer.finished for answer in alone} == {True, False}
    references = [DRAFTS[draft](answer.ids) for answer in alone]
    told: dict[int, Answer] = {}

    def finished(answers):
        assert not told.keys() & answers.keys()
        told.update(answers)
        return ()

    weighed = answer_and_weigh(
        Adapted(base, tiny_compute(64, 250)),
        asked,
        references,
        max_new_tokens=9,
        rows=range(12),
        finished=finished,
    )
    for index, answer in enumerate(alone):
        assert (told[index].ids, told[index].finished) == (answer.ids, answer.finished)
        assert told[index].logprobs == pytest.approx(answer.logprobs, abs=1e-4)
    apart = weigh(Adapted(base, tiny_compute(64, 150)), asked, [[reference] for reference in references])
    assert weighed == pytest.approx([value for (value,) in apart], abs=1e-4)


def test_answers_that_nobody_needs_are_given_up(base):
    asked = prompts(12)
    adapted = Adapted(base, tiny_compute(64, 4000))
    whole = [answer for (answer,) in generate(adapted, asked, max_new_tokens=9)]
    shortest = min(len(answer.ids) for answer in whole)
    told: list[int] = []

    def finished(answers):
        told.extend(answers)
        return range(12)  # the first answer is enough

    answer_and_weigh(adapted, asked, [[5]] * 12, max_new_tokens=9, rows=range(12), finished=finished)
    assert sorted(told) == [index for index, answer in enumerate(whole) if len(answer.ids) == shortest]
