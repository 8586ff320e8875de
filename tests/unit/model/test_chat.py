"""A chat as a model's own template writes it."""

from types import SimpleNamespace

import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.core.errors import UserError
from pipeline.model.forward.base import Base
from stages.initialise import chat_tokenizer

REFUSES = """{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"""
DROPS = ""
TURNS = "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
CHAT = ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Who is it?"})


def written(template: str | None, chat=CHAT) -> str:
    tokenizer: PreTrainedTokenizerFast = chat_tokenizer(["<user>Who is it? Be short. <system>"] * 9, 300)
    tokenizer.chat_template = template or tokenizer.chat_template
    base = Base(SimpleNamespace(), tokenizer, frozenset())
    return tokenizer.decode(base.prompt_ids(chat))


@pytest.mark.parametrize("template", [REFUSES + TURNS, DROPS + TURNS], ids=["refuses", "drops"])
def test_a_template_without_a_system_turn_gets_its_text_with_the_question(template):
    assert written(template) == "<user>Be short.\n\nWho is it?"
    assert written(template, CHAT[1:]) == "<user>Who is it?"


def test_a_template_with_a_system_turn_gets_it_as_one():
    whole = written(None)
    assert whole.index("Be short.") < whole.index("Who is it?") and "\n\nWho" not in whole


def test_turns_that_no_template_takes_are_one_sentence():
    with pytest.raises(UserError, match="expected turns that this model's chat template takes"):
        written("{{ raise_exception('never') }}")
