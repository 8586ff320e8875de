"""What a request's body may say: read as OpenAI's API means it, or refused in one sentence that names the field."""

import json

import pytest

from pipeline.serving.http.bodies import Chat, Completion, read
from pipeline.serving.http.refusals import Refused

TURNS = [{"role": "user", "content": "Hi"}]


def chat(**fields) -> Chat:
    return read(Chat, json.dumps({"model": "base", "messages": TURNS, **fields}).encode())


def completion(**fields) -> Completion:
    return read(Completion, json.dumps({"model": "base", "prompt": "Hi", **fields}).encode())


SERVED = {
    "nulls": {"max_tokens": None, "stop": None, "n": None, "temperature": None, "top_k": None, "tools": None},
    "several answers": {"n": 2},
    "one stop": {"stop": "###"},
    "no stops": {"stop": []},
    "several stops": {"stop": ["a", "b"]},
    "an empty bias": {"logit_bias": {}},
    "log-probabilities": {"logprobs": True, "top_logprobs": 2},
    "whole numbers": {"top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "temperature": 0},
    "a nucleus": {"top_p": 0.9},
    "penalties": {"presence_penalty": -2, "frequency_penalty": 2},
    "a negative seed": {"seed": -1},
    "text as the format": {"response_format": {"type": "text"}, "modalities": ["text"]},
    "no tools": {"tools": [], "tool_choice": "none", "functions": [], "function_call": "auto"},
    "who asks": {"user": "u", "metadata": {"a": "b"}, "store": False, "parallel_tool_calls": True},
    "where it is filed": {"safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "auto"},
}


@pytest.mark.parametrize("fields", SERVED.values(), ids=SERVED)
def test_what_clients_send_is_read(fields):
    chat(**fields)


def test_a_field_that_is_null_is_as_good_as_left_out():
    assert chat(n=None, top_p=None, stop=None) == chat()


UNKNOWN = ["top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "guided_choice", "guided_json"]
UNKNOWN += ["continue_final_message", "add_generation_prompt", "reasoning_effort", "web_search_options", "audio"]


@pytest.mark.parametrize("field", UNKNOWN)
def test_a_field_that_nobody_reads_is_refused_by_name(field):
    for ask in (chat, completion):
        with pytest.raises(Refused, match=f"expected fields that this server serves, got '{field}'; ") as raised:
            ask(**{field: 1})
        assert (raised.value.status, raised.value.field) == (400, field)


def test_a_misspelt_field_is_set_right():
    with pytest.raises(Refused, match="did you mean 'temperature'"):
        chat(temprature=1)


REFUSED = {
    "a bias": ({"logit_bias": {"28": -100}}, "logit_bias"),
    "functions": ({"functions": [{"name": "f"}]}, "functions"),
    "a function": ({"function_call": {"name": "f"}}, "function_call"),
    "tools": ({"tools": [{}]}, "tools"),
    "a tool": ({"tool_choice": {"type": "function"}}, "tool_choice"),
    "JSON": ({"response_format": {"type": "json_object"}}, "response_format.type"),
    "sound": ({"modalities": ["audio"]}, "modalities.0"),
    "to be stored": ({"store": True}, "store"),
    "no answers": ({"n": 0}, "n"),
    "no nucleus": ({"top_p": 0}, "top_p"),
    "more than all": ({"top_p": 1.1}, "top_p"),
    "a hot temperature": ({"temperature": 2.1}, "temperature"),
    "a large penalty": ({"presence_penalty": 3}, "presence_penalty"),
    "an empty stop": ({"stop": ""}, "stop"),
    "an empty stop among others": ({"stop": ["a", ""]}, "stop"),
    "a long stop": ({"stop": "x" * 201}, "stop"),
    "many stops": ({"stop": ["x"] * 17}, "stop"),
    "many likeliest": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "tokens in words": ({"max_tokens": "4"}, "max_tokens"),
    "a huge seed": ({"seed": 10**30}, "seed"),
    "a number as the model": ({"model": 3}, "model"),
    "messages of another type": ({"messages": "Hi"}, "messages"),
    "a coefficient in words": ({"mixture": {"sums": "1"}}, "mixture.sums"),
}


@pytest.mark.parametrize(("fields", "place"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_served_is_refused_by_name(fields, place):
    with pytest.raises(Refused) as raised:
        chat(**fields)
    assert raised.value.status == 400
    assert f"'{place}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_likeliest_tokens_without_log_probabilities_are_refused():
    with pytest.raises(Refused, match="expected top_logprobs together with logprobs"):
        chat(top_logprobs=2)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"3", b'{"model": NaN}', b"[" * 5000, b"\xff\xfe"])
def test_what_is_no_object_of_json_is_refused(body):
    with pytest.raises(Refused, match="expected JSON|'the body' does not fit") as raised:
        read(Chat, body)
    assert raised.value.status == 400
    assert len(str(raised.value)) < 300


def test_whoever_asks_for_several_answers_or_a_nucleus_wants_a_draw():
    assert chat().heat == 0
    assert chat(n=2).heat == chat(top_p=0.9).heat == 1
    assert chat(n=2, temperature=0).heat == 0


def test_the_turns_are_plain_text():
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]
    turns = chat(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]).turns
    assert [(turn["role"], turn["content"]) for turn in turns] == [("system", "Be brief."), ("user", "Hi you")]
    sound = [{"type": "input_audio", "input_audio": {"data": ""}}]
    assert chat(messages=[{"role": "user", "content": sound}]).turns[0]["content"] == sound


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("Hi", ["Hi"]), (["Hi", "you"], ["Hi", "you"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]]), ([], [])],
)
def test_a_prompt_is_a_text_its_tokens_or_several(prompt, prompts):
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": {"text": "Hi"}}, "'prompt'"),
        ({"prompt": [[1], "x"]}, "'prompt"),
        ({"prompt": None}, "expected the field 'prompt'"),
        ({"best_of": 2}, "best_of to equal n"),
        ({"max_tokens": 0}, "at least 1 new token, or echo"),
        ({"max_tokens": -1}, "'max_tokens'"),
        ({"logprobs": 21}, "'logprobs'"),
        ({"logprobs": True}, "'logprobs'"),
        ({"suffix": "end"}, "'suffix'"),
        ({"messages": TURNS}, "'messages'"),
    ],
)
def test_a_completion_that_cannot_be_is_refused(fields, words):
    with pytest.raises(Refused, match=words):
        completion(**fields)


def test_a_completion_as_evaluation_harnesses_ask_for_it_is_read():
    asked = completion(prompt=[[1, 2, 3]], temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    assert (asked.echo, asked.logprobs, asked.max_tokens, asked.heat) == (True, 1, 1, 0)
    assert completion(max_tokens=0, echo=True).max_tokens == 0
    assert completion(stop=["\n\n", "Question:"]).stops == ("\n\n", "Question:")


def test_parts_that_are_pictures_become_the_turns_images():
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "text", "text": "What?"},
    ]
    (turn,) = chat(messages=[{"role": "user", "content": parts}]).turns
    assert turn == {"role": "user", "content": "What?", "images": ["data:image/png;base64,AA=="]}
