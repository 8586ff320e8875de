"""Answering by choosing: what is compared, in which unit, and that nothing is written."""

import pytest
import torch
from pydantic import ValidationError

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import PLAIN, Example
from pipeline.model.decoding.batch import Decoding
from pipeline.model.decoding.choose import choose, continuations, lengths, likeliest
from pipeline.model.forward.base import Adapted, Base
from tests.tiny import tiny_base, tiny_compute


def example(number: int, *texts: str, role: str = PLAIN) -> Example:
    choices = {chr(65 + place): text for place, text in enumerate(texts)}
    return Example(f"e{number}", ({"role": role, "content": f"Q{number}"},), "", {"choices": choices, "answer": "A"})


def test_choices_are_weighed_as_texts_behind_the_prompt():
    base, compute = tiny_base(), tiny_compute()
    examples = [example(0, "x", "yy", "zzz"), example(1, "longer", "s", role="user")]
    answers = choose(Adapted(base, compute), examples, "sum")
    for one, answer in zip(examples, answers, strict=True):
        prompt, values = base.prompt_ids(one.messages), []
        for ids in continuations(base, one):
            logits = base.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
            values.append(float(logits[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None]).sum()))
        best = values.index(max(values))
        assert list(answer.ids) == continuations(base, one)[best] and answer.finished
        assert answer.logprobs == (pytest.approx(values[best], abs=1e-4),)


def test_bare_text_has_a_blank_before_its_choices_and_a_chat_has_none():
    base = tiny_base()
    assert [len(ids) for ids in continuations(base, example(0, "x", "yy"))] == [2, 3]
    chat = example(0, "x", "yy", role="user")
    assert [len(ids) for ids in continuations(base, chat)] == [1, 2]
    assert [len(ids) for ids in continuations(base, chat, ended=True)] == [2, 3]


def test_likelihoods_are_compared_as_they_are_or_per_token_or_character():
    base, asked = tiny_base(), example(0, "x", "yy", "zzz")
    choices = continuations(base, asked)
    assert lengths(asked, choices, "sum") == [1, 1, 1]
    assert lengths(asked, choices, "token") == [2, 3, 4]
    assert lengths(asked, choices, "character") == [1, 2, 3]
    assert likeliest([-4.0, -3.0, -3.0], [1, 1, 1]) == 1  # the first of equals
    assert likeliest([-4.0, -3.0, -3.0], [8, 3, 3]) == 0


def test_bare_text_is_tokenised_without_a_chat_template():
    class Tokenizer:
        def __call__(self, text):
            return {"input_ids": [1, *map(ord, text)]}

        def apply_chat_template(self, messages, **_):
            raise AssertionError("bare text is no chat")

    base = Base(model=None, tokenizer=Tokenizer(), end_ids=frozenset())
    assert base.prompt_ids([{"role": PLAIN, "content": "ab"}]) == [1, 97, 98]


@pytest.mark.parametrize("given", [{}, {"max_new_tokens": 4, "choose_by": "sum"}, {"choose_by": "letters"}])
def test_a_task_is_answered_in_one_way(given):
    with pytest.raises(UserError, match=r"params.yaml, .*'tasks.x.decoding"):
        Decoding.parse(given, "tasks.x.decoding")


def test_a_task_that_chooses_has_no_limit():
    assert issubclass(Decoding, Section) and Decoding.parse({"max_new_tokens": 5}, "").limit == 5
    with pytest.raises(ValueError, match="writes no tokens"):
        _ = Decoding.parse({"choose_by": "token"}, "").limit
    with pytest.raises(ValidationError):
        Decoding(max_new_tokens=0)
