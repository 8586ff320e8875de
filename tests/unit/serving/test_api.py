"""OpenAI's API, asked by its own client: what each field does, against slow and obvious references."""

import time

import httpx
import openai
import pytest
import torch

from pipeline.model.forward.base import load_base
from pipeline.serving.assistant import Assistant
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.server import Server
from tests.project import make_project
from tests.serving import LIMITS, served

PROMPT = "What is 12 + 30? Write a function."


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture(scope="module")
def server(project):
    return Server(Assistant(project, rows=12), LIMITS)


@pytest.fixture(scope="module")
def url(server):
    with served(server) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def base(project):
    return load_base(project.model, project.compute())


@pytest.fixture
def chat(client):
    def chat(model: str = "base", prompt: str = PROMPT, **more):
        more = {"max_tokens": 12, **more}
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], **more)

    return chat


@pytest.fixture
def complete(client):
    def complete(prompt=PROMPT, model: str = "base", **more):
        return client.completions.create(model=model, prompt=prompt, **{"max_tokens": 12, **more})

    return complete


def text_of(answer) -> str:
    return answer.choices[0].message.content


def logprobs_of(base, ids: list[int]) -> torch.Tensor:
    """Row i: the log-probabilities of the token behind the first i + 1 ids."""
    with torch.no_grad():
        return base.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(1)


def greedily(base, ids: list[int], tokens: int, *, presence: float = 0.0, frequency: float = 0.0) -> list[int]:
    """The most likely tokens, the whole text read anew for each."""
    written: list[int] = []
    while len(written) < tokens and not (written and written[-1] in base.end_ids):
        scores = logprobs_of(base, [*ids, *written])[-1].clone()
        for id_ in set(written):
            scores[id_] -= presence + frequency * written.count(id_)
        written.append(int(scores.argmax()))
    return written


# ---- stop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["base", "expert:sums"])
def test_an_answer_ends_before_its_first_stop(chat, model):
    whole = text_of(chat(model))
    stop = whole[len(whole) // 2 :][:3]
    expected = whole[: whole.index(stop)]
    for stops in (stop, [stop], ["never said", stop]):
        answer = chat(model, stop=stops)
        assert (text_of(answer), answer.choices[0].finish_reason) == (expected, "stop")
        assert answer.usage.completion_tokens <= 12
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(model, stop=stop, stream=True)]
    assert "".join(pieces) == expected


def test_a_stop_that_never_comes_changes_nothing(chat):
    plain, stopped = chat(), chat(stop="never said")
    assert text_of(stopped) == text_of(plain)
    assert stopped.choices[0].finish_reason == plain.choices[0].finish_reason


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_several_answers_are_those_of_following_seeds_and_share_their_prompt(chat):
    answer = chat(n=3, seed=5, temperature=1.5)
    alone = [chat(seed=seed, temperature=1.5) for seed in (5, 6, 7)]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == [text_of(one) for one in alone]
    assert answer.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert answer.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_several_answers_are_streamed_side_by_side(chat):
    texts, reasons, usages = ["", "", ""], {}, []
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for chunk in chat(n=3, seed=5, temperature=1.5, **options):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons.update({choice.index: choice.finish_reason} if choice.finish_reason else {})
        usages += [chunk.usage] if chunk.usage else []
    whole = chat(n=3, seed=5, temperature=1.5)
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert usages == [whole.usage]


def test_the_smallest_nucleus_is_the_likeliest_token(chat):
    assert text_of(chat(top_p=1e-9, temperature=2, seed=1)) == text_of(chat())
    draws = {text_of(chat(top_p=0.95, temperature=1.5, seed=seed)) for seed in range(3)}
    assert len(draws) > 1


def test_penalties_are_the_definition_s(chat, base):
    ids = base.prompt_ids([{"role": "user", "content": PROMPT}])
    for name in ("presence", "frequency"):
        for value in (2.0, -2.0):
            expected = base.text(greedily(base, ids, 12, **{name: value}))
            assert text_of(chat(**{f"{name}_penalty": value})) == expected


# ---- log-probabilities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [0, 3])
def test_an_answer_s_tokens_are_told_with_their_log_probabilities(chat, base, top):
    ids = base.prompt_ids([{"role": "user", "content": PROMPT}])
    written = greedily(base, ids, 12)
    expected = logprobs_of(base, [*ids, *written])[len(ids) - 1 :]
    answer = chat(logprobs=True, top_logprobs=top)
    told = answer.choices[0].logprobs.content
    assert len(told) == len(written) == answer.usage.completion_tokens
    for place, (token, id_) in enumerate(zip(told, written, strict=True)):
        assert token.token == base.tokenizer.decode([id_])
        assert token.bytes is None or bytes(token.bytes).decode() == token.token
        assert token.logprob == pytest.approx(float(expected[place, id_]), abs=1e-3)
        assert len(token.top_logprobs) == top
        if top:
            assert token.top_logprobs[0].logprob == token.logprob  # the likeliest was taken
            values = [other.logprob for other in token.top_logprobs]
            assert values == pytest.approx(expected[place].topk(top).values.tolist(), abs=1e-3)
    assert chat().choices[0].logprobs is None


def test_a_stream_tells_every_token_once(chat):
    whole = chat(logprobs=True, top_logprobs=1).choices[0].logprobs.content
    told = []
    for chunk in chat(logprobs=True, top_logprobs=1, stream=True):
        told += chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else []
    assert told == whole


def test_log_probabilities_are_the_model_s_whatever_is_drawn(chat):
    options = {"logprobs": True, "top_logprobs": 2, "max_tokens": 1}
    plain = chat(**options).choices[0].logprobs.content[0].top_logprobs
    drawn = chat(temperature=2, seed=3, top_p=0.5, presence_penalty=1, **options).choices[0].logprobs.content[0]
    assert [token.token for token in drawn.top_logprobs] == [token.token for token in plain]
    assert [token.logprob for token in drawn.top_logprobs] == pytest.approx([t.logprob for t in plain], abs=1e-4)


# ---- completions -----------------------------------------------------------------------------------------------------


def test_a_text_is_continued_without_a_chat_template(complete, base):
    ids = base.tokenizer(PROMPT)["input_ids"]
    expected = greedily(base, ids, 12)
    answer = complete()
    assert answer.object == "text_completion"
    assert answer.choices[0].text == base.text(expected)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), len(expected))
    assert complete(ids).choices[0].text == answer.choices[0].text
    assert complete(max_tokens=None).usage.completion_tokens <= 16
    assert complete(echo=True).choices[0].text == PROMPT + answer.choices[0].text
    pieces = [chunk.choices[0].text for chunk in complete(stream=True)]
    assert "".join(pieces) == answer.choices[0].text


def test_several_texts_are_continued_in_their_order(complete):
    prompts = [PROMPT, "def", "Anna, Ben or Carl"]
    together = complete(prompts, model="expert:sums")
    alone = [complete(prompt, model="expert:sums") for prompt in prompts]
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.text for choice in together.choices] == [one.choices[0].text for one in alone]
    assert together.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    twice = complete(prompts[:2], n=2, temperature=1.5, seed=4)
    assert len(twice.choices) == 4
    assert twice.choices[2].text == complete(prompts[1], temperature=1.5, seed=4).choices[0].text


@pytest.mark.parametrize("model", ["prompt", "classifier", "csreft", "lora:sums", "mixture:few_shot-groceries"])
def test_every_strategy_continues_texts(complete, model):
    answer = complete(model=model)
    assert answer.model_extra["selfadapt"]["chosen"]
    assert complete([PROMPT, PROMPT], model=model).choices[1].model_extra["selfadapt"]["chosen"]


def test_a_log_likelihood_is_had_as_evaluation_harnesses_have_it(complete, base):
    """Context and continuation as token ids, echoed with one more token: all but that one are summed."""
    context, continuation = base.tokenizer("What is 12 + 30?")["input_ids"], base.tokenizer(" Anna, Ben")["input_ids"]
    ids = [*context, *continuation]
    expected = logprobs_of(base, ids)
    sums = [float(expected[len(context) + place - 1, id_]) for place, id_ in enumerate(continuation)]
    answer = complete([ids, context], temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    told = answer.choices[0].logprobs
    assert (
        len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == len(ids) + 1
    )
    assert told.token_logprobs[0] is told.top_logprobs[0] is None
    assert told.token_logprobs[len(context) : -1] == pytest.approx(sums, abs=1e-3)
    for place in range(1, len(ids)):
        likeliest = max(told.top_logprobs[place].values())
        assert likeliest == pytest.approx(float(expected[place - 1].max()), abs=1e-3)
        assert (told.token_logprobs[place] == likeliest) == (ids[place] == int(expected[place - 1].argmax()))
    assert told.text_offset[0] == 0
    assert len(answer.choices[1].logprobs.tokens) == len(context) + 1
    greedy = [*context, *greedily(base, context, 3)]
    told = complete(greedy, max_tokens=1, logprobs=1, echo=True).choices[0].logprobs
    own = told.token_logprobs[len(context) : -1]
    assert own == [max(others.values()) for others in told.top_logprobs[len(context) : -1]]


@pytest.mark.parametrize("model", ["expert:sums", "lora:sums", "loreft"])
def test_a_prompt_is_weighed_under_the_strategy(complete, model):
    def likelihood(name: str) -> float:
        told = complete(model=name, max_tokens=0, logprobs=0, echo=True).choices[0].logprobs
        return sum(told.token_logprobs[1:])

    assert abs(likelihood(model) - likelihood("base")) > 0.1


def test_a_prompt_alone_can_be_echoed(complete, base):
    answer = complete(max_tokens=0, echo=True, logprobs=2)
    assert answer.choices[0].text == PROMPT
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 0
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == PROMPT
    assert all(len(others) in (2, 3) for others in told.top_logprobs[1:])
    streamed = list(complete(max_tokens=0, echo=True, logprobs=2, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == PROMPT
    tokens = [token for chunk in streamed if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.tokens]
    assert tokens == told.tokens


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [10**6], [-1]])
def test_a_prompt_of_nothing_is_refused(complete, prompt):
    with pytest.raises(openai.BadRequestError, match="expected"):
        complete(prompt)


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_an_answer_that_was_cut_by_time_says_so(project, monkeypatch):
    server = Server(Assistant(project), Limits(seconds=0.4, max_new_tokens=400))
    step = server.engine.step

    def slowly() -> bool:
        time.sleep(0.01)
        return step()

    monkeypatch.setattr(server.engine, "step", slowly)
    with served(server) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        asked = {"model": "base", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 400}
        answer = client.chat.completions.create(**asked, logprobs=True, frequency_penalty=2.0)
        assert answer.choices[0].finish_reason == "time"
        assert 0 < answer.usage.completion_tokens < 400
        reasons = [chunk.choices[0].finish_reason for chunk in client.chat.completions.create(**asked, stream=True)]
        assert reasons[-1] in ("time", "stop")
        assert "length" not in reasons


def test_without_a_number_an_answer_has_the_tokens_that_the_context_leaves(chat, base):
    prompt = "12 + " * 300
    while len(base.prompt_ids([{"role": "user", "content": prompt}])) > 500:
        prompt = prompt[:-5]
    answer = chat(prompt=prompt, max_tokens=None)
    assert answer.usage.total_tokens <= 512
    assert answer.usage.prompt_tokens > 480
    with pytest.raises(openai.BadRequestError, match="expected at most 512 tokens"):
        chat(prompt=prompt, max_tokens=60)


def test_a_key_is_the_client_s(project):
    with served(Server(Assistant(project), LIMITS, key="a key")) as url:
        with pytest.raises(openai.AuthenticationError, match="API key"):
            openai.OpenAI(base_url=f"{url}/v1", api_key="other", max_retries=0).models.list()
        assert openai.OpenAI(base_url=f"{url}/v1", api_key="a key", max_retries=0).models.list().data
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_request_meant_for_another_host_is_refused_before_it_is_read(url):
    answer = httpx.post(f"{url}/v1/chat/completions", content=b"x" * 30_000, headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["error"]["message"]
