"""Rules against repetition: against transformers' own, and in answers."""

import pytest
import torch
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from pipeline.model.decoding.answer import generate
from pipeline.model.decoding.repetition import History, Repetition
from pipeline.model.forward.base import Adapted
from tests.tiny import tiny_base, tiny_compute

VOCABULARY = 13


@pytest.mark.parametrize("ngram", [0, 1, 2, 5])
@pytest.mark.parametrize("penalty", [1.0, 1.1, 2.0])
def test_logits_are_those_of_transformers(penalty: float, ngram: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, steps = 3, 12
    prompts = torch.randint(0, VOCABULARY, (rows, 9), generator=generator)
    history = History(Repetition(penalty, ngram), prompts.tolist(), VOCABULARY, torch.device("cpu"))
    ids, samples = prompts, torch.arange(rows)
    for _ in range(steps):
        logits = 3 * torch.randn(rows, VOCABULARY, generator=generator)
        expected = logits.clone()
        if penalty != 1:
            expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, expected)
        if ngram:
            expected = NoRepeatNGramLogitsProcessor(ngram)(ids, expected)
        torch.testing.assert_close(history.ruled(samples, logits), expected)
        chosen = torch.randint(0, VOCABULARY, (rows,), generator=generator)
        history.add(samples, chosen)
        ids = torch.cat([ids, chosen[:, None]], dim=1)


def test_no_rules_are_none() -> None:
    assert not Repetition(1.0, 0)
    assert Repetition(1.1, 0) and Repetition(1.0, 5)


PROMPTS = [[1, 5, 9, 5], [1, 7, 7, 7, 8, 9], [1, 30]]


@pytest.mark.parametrize("cache_tokens", [60, 10_000])
def test_answers_are_those_of_transformers_under_the_same_rules(cache_tokens: int) -> None:
    base = tiny_base()
    adapted = Adapted(base, tiny_compute(cache_tokens=cache_tokens))
    rules = Repetition(1.3, 2)
    answers = [one.ids for (one,) in generate(adapted, PROMPTS, max_new_tokens=16, repetition=rules)]
    expected = []
    for prompt in PROMPTS:
        ids = base.model.generate(
            torch.tensor([prompt]), max_new_tokens=16, do_sample=False, repetition_penalty=1.3, no_repeat_ngram_size=2
        )
        expected.append(tuple(ids[0, len(prompt) :].tolist()))
    assert answers == expected
    free = [one.ids for (one,) in generate(adapted, PROMPTS, max_new_tokens=16)]
    assert free != answers
