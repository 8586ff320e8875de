"""The decode loop against transformers' own, and its sampler against the distribution it claims to draw from."""

import pytest
import torch

from pipeline.core.adapters import Attachment
from pipeline.core.generation import generate, sample
from tests.tiny import END, tiny_base

BUDGET = {"batch_tokens": 64, "cache_tokens": 400}


@pytest.fixture(scope="module")
def base():
    return tiny_base(vocab=300)


def prompts(count: int, longest: int = 14) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(3, 300, (length,), generator=generator).tolist() for length in lengths]


def test_greedy_equals_transformers_token_for_token(base):
    asked = prompts(40)
    found = generate(base, asked, max_new_tokens=12, **BUDGET)
    for prompt, (answer,) in zip(asked, found, strict=True):
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
    one = generate(base, asked, max_new_tokens=8, batch_tokens=1, cache_tokens=1)
    many = generate(base, asked, max_new_tokens=8, batch_tokens=10_000, cache_tokens=10_000)
    assert [a.ids for (a,) in one] == [a.ids for (a,) in many]


def test_samples_do_not_depend_on_how_rows_are_batched(base):
    asked = prompts(9)

    def draw(**budget):
        return generate(
            base,
            asked,
            max_new_tokens=6,
            samples=3,
            temperature=1.0,
            generator=torch.Generator().manual_seed(4),
            **budget,
        )

    small, large = draw(batch_tokens=20, cache_tokens=60), draw(batch_tokens=10_000, cache_tokens=10_000)
    assert [[a.ids for a in group] for group in small] == [[a.ids for a in group] for group in large]
    assert any(len({a.ids for a in group}) > 1 for group in small)


def test_logprobs_of_the_loop_are_those_of_the_whole_sequence(base):
    asked = prompts(6)
    found = generate(
        base, asked, max_new_tokens=6, samples=2, temperature=1.0, generator=torch.Generator().manual_seed(1), **BUDGET
    )
    for prompt, group in zip(asked, found, strict=True):
        for answer in group:
            logits = base.model(input_ids=torch.tensor([[*prompt, *answer.ids]])).logits[0].float().log_softmax(-1)
            expected = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(answer.ids)[:, None]).squeeze(1)
            torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=1e-4, rtol=0)


def test_an_answer_ends_with_the_end_of_sequence_token_or_at_the_limit(base):
    for group in generate(
        base,
        prompts(30),
        max_new_tokens=25,
        samples=2,
        temperature=1.5,
        generator=torch.Generator().manual_seed(3),
        **BUDGET,
    ):
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


def test_adapters_are_told_rows_and_prompts(base):
    told = []

    class Recorder(Attachment):
        def begin(self, rows, prompt_mask):
            told.append((rows.tolist(), None if prompt_mask is None else prompt_mask.sum(1).tolist()))

    asked = [[5, 6, 7], [8], [9, 10]]
    generate(base, asked, max_new_tokens=2, attachment=Recorder(), rows=[7, 8, 9], **BUDGET)
    assert told[0] == ([7, 9, 8], [3, 2, 1])  # longest first
    assert told[1] == ([7, 9, 8], None)


def test_the_attention_of_the_model_is_put_back(base):
    generate(base, [[5]], max_new_tokens=1, **BUDGET)
    assert base.model.config._attn_implementation == "sdpa"
