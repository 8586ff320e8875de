"""The server, asked by the real openai client over a socket: answers, status codes, and what others do to it."""

import asyncio
import gc
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import openai
import psutil
import pytest

from pipeline.serving.assistant import Assistant
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.server import Server
from tests.project import make_project
from tests.serving import LIMITS, REFUSED, SERVED, served

PROMPTS = ["What is 12 + 30?", "Write a function.", "Who is the oldest? Anna, Ben or Carl.", "def"]
# Six experts and mixtures, and some of the other kinds beside them.
MODELS = ["expert:sums", "expert:functions", "expert:kinds", "mixture:few_shot-groceries", "mixture:uniform-groceries"]
MODELS += ["mixture", "base", "lora:sums", "csreft", "loreft", "prompt", "classifier"]
NUMBERS = {"mixture": {"sums": 0.7, "functions": 0.3}}


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
def offline(project):
    """The same questions to an engine of its own, one after the other."""
    alone = Assistant(project)
    return lambda model, prompt, tokens: alone.generate(
        prompt, NUMBERS["mixture"] if model == "mixture" else model, max_new_tokens=tokens
    )


def asked(model: str, prompt: str, tokens: int = 24, **more) -> dict:
    extra = {"extra_body": NUMBERS} if model == "mixture" else {}
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, **extra, **more}


def head(body: bytes) -> bytes:
    """What comes before the body of a request for a chat."""
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def idle(server: Server, seconds: float = 60) -> bool:
    """Whether every row and every job in line goes within some time."""
    deadline = time.monotonic() + seconds
    while server.engine.load != (0, 0) and time.monotonic() < deadline:
        time.sleep(0.02)
    return server.engine.load == (0, 0)


def test_the_models_are_the_strategies(client, server):
    names = [model.id for model in client.models.list()]
    assert names == server.assistant.strategies()
    assert {"base", "prompt", "classifier", "csreft-0", "loreft-0", "expert:svf-sums-0"} <= set(names)
    for name in ("expert:svf-sums-0", "expert:sums", "csreft", "mixture:few_shot-groceries"):
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="expected one of the models base"):
        client.models.retrieve("gpt-4o")


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_is_the_offline_one_with_what_it_cost(client, offline, model):
    answer = client.chat.completions.create(**asked(model, PROMPTS[0]))
    expected = offline(model, PROMPTS[0], 24)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.ended
    assert answer.usage.completion_tokens == expected.tokens
    assert answer.usage.prompt_tokens == expected.prompt_tokens
    assert answer.model_extra["selfadapt"]["chosen"] == expected.decision.chosen


def test_32_streams_at_once_with_different_experts_and_mixtures_equal_the_offline_answers(url, offline, server):
    async def one(client, number: int) -> tuple[str, str, str]:
        model, prompt = MODELS[number % len(MODELS)], PROMPTS[number % len(PROMPTS)]
        pieces, decided = [], 0
        stream = await client.chat.completions.create(
            **asked(model, prompt, 30, stream=True, stream_options={"include_usage": True})
        )
        async for chunk in stream:
            decided += "selfadapt" in (chunk.model_extra or {})
            if chunk.choices:
                pieces.append(chunk.choices[0].delta.content or "")
            else:
                assert chunk.usage.completion_tokens > 0
        assert decided == 1
        return model, prompt, "".join(pieces)

    most = 0

    def watch():
        nonlocal most
        while not over.is_set():
            most = max(most, server.engine.load[0])
            time.sleep(0.001)

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(32)))

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = asyncio.run(all_of_them())
    finally:
        over.set()
        watcher.join()
    for model, prompt, text in found:
        assert text == offline(model, prompt, 30).text, (model, prompt)
    assert most > 4  # they did share batches


def test_a_seed_fixes_a_sample(client):
    def draw(seed: int) -> str:
        answer = client.chat.completions.create(**asked("expert:sums", "def", temperature=1.5, seed=seed))
        return answer.choices[0].message.content

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_an_unknown_model_is_404_and_reads_no_file(client, tmp_path):
    file = tmp_path / "mixed.json"
    file.write_text('{"experts": {"sums": 1}}')
    for name in ("gpt-4", f"mixture:{file}", f"expert:{tmp_path}", "mixture:../params.yaml"):
        with pytest.raises(openai.NotFoundError, match="expected one of the models base"):
            client.chat.completions.create(**asked(name, "def"))


def test_a_request_too_large_is_413_declared_or_not(url):
    assert httpx.post(f"{url}/v1/chat/completions", content=b"x" * 30_000).status_code == 413
    parts = (b"x" * 1000 for _ in range(30))
    assert httpx.post(f"{url}/v1/chat/completions", content=parts).status_code == 413


def test_other_routes_and_methods_say_what_there_is(url):
    assert "GET /v1/models" in httpx.get(f"{url}/v1/nothing").json()["error"]["message"]
    refused = httpx.get(f"{url}/v1/chat/completions")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST, OPTIONS")
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "running": 0, "waiting": 0}


def test_head_and_options_are_answered(url):
    for path in ("/health", "/v1/models", "/v1/models/base"):
        answer = httpx.head(f"{url}{path}")
        assert (answer.status_code, answer.content) == (200, b"")
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    for path, methods in (("/v1/models", {"GET", "HEAD"}), ("/v1/completions", {"POST"})):
        answer = httpx.options(f"{url}{path}", headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert {method.strip() for method in answer.headers["allow"].split(",")} == {*methods, "OPTIONS"}
        assert answer.headers["access-control-allow-origin"] == asked["Origin"]
        assert answer.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert httpx.options(f"{url}/v1/nothing").status_code == 404


@pytest.mark.parametrize("fields", SERVED.values(), ids=SERVED)
def test_what_clients_send_is_answered(url, fields):
    body = {"model": "base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **fields}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text


def test_an_error_names_its_field(url):
    body = {**asked("base", "def"), "top_k": 3}
    error = httpx.post(f"{url}/v1/chat/completions", json=body).json()["error"]
    assert (error["param"], error["type"], error["code"]) == ("top_k", "invalid_request_error", 400)


def test_a_full_line_is_429_and_later_ones_are_answered(url, client, server):
    def ask(_) -> int:
        return httpx.post(f"{url}/v1/chat/completions", json=asked("base", "def", 60), timeout=60).status_code

    with ThreadPoolExecutor(90) as pool:
        codes = list(pool.map(ask, range(90)))
    assert set(codes) == {200, 429}
    assert idle(server)
    client.chat.completions.create(**asked("base", "def"))


def test_a_client_that_goes_takes_its_row_with_it(url, server):
    for stream in (True, False):
        body = json.dumps(asked("expert:sums", "def", 60, stream=stream)).encode()
        for _ in range(8):
            with socket.create_connection(url.removeprefix("http://").split(":")) as connection:
                connection.sendall(head(body) + body)
        assert idle(server)


def test_a_client_that_does_not_read_keeps_nobody_waiting(url, server, client):
    body = json.dumps(asked("expert:sums", "def", 60, stream=True)).encode()
    silent = [socket.create_connection(url.removeprefix("http://").split(":")) for _ in range(20)]
    for connection in silent:
        connection.sendall(head(body) + body)
    client.chat.completions.create(**asked("expert:functions", "def"))
    assert idle(server)  # their rows have ended, though nobody has read a byte
    for connection in silent:
        connection.close()


def test_a_request_that_does_not_arrive_is_408(project):
    server = Server(Assistant(project), Limits(seconds=0.5))
    with served(server) as url, socket.create_connection(url.removeprefix("http://").split(":")) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in connection.recv(1000)


def test_a_fault_of_ours_is_500_without_its_insides_and_the_next_request_is_answered(client, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.serving.engine.choose", lambda *_, **__: 1 / 0)
        with pytest.raises(openai.InternalServerError) as raised:
            client.chat.completions.create(**asked("base", "def"))
    assert "division" not in str(raised.value)
    assert client.chat.completions.create(**asked("base", "def")).choices


def test_a_thousand_requests_of_every_kind_leave_nothing_behind(url, server, offline):
    """Honest and hostile ones, in random order, twenty at a time; the server's health is asked for throughout."""
    expected = {(model, prompt): offline(model, prompt, 6).text for model in MODELS for prompt in PROMPTS}
    storm = Storm(url, expected)
    process = psutil.Process()
    with watched(url) as waits, ThreadPoolExecutor(20) as pool:
        list(pool.map(storm.send, storm.kinds[:300]))
        gc.collect()
        before = process.memory_info().rss
        list(pool.map(storm.send, storm.kinds[300:]))
    storm.close()
    assert len(waits) > 20
    assert max(waits) < 1
    assert idle(server)
    gc.collect()
    assert process.memory_info().rss - before < 60e6
    assert server._arriving == 0
    assert server.engine._cache.keys == []
    assert httpx.get(f"{url}/health").status_code == 200


@contextmanager
def watched(url: str):
    """Ask for the server's health twenty times a second; yields how long each answer took (s)."""
    waits, over = [], threading.Event()

    def watch():
        with httpx.Client(timeout=30) as own:
            while not over.wait(0.05):
                started = time.monotonic()
                assert own.get(f"{url}/health").status_code == 200
                waits.append(time.monotonic() - started)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield waits
    finally:
        over.set()
        watcher.join()


class Storm:
    """Requests of many kinds. expected: (model, prompt) → the answer of six tokens."""

    def __init__(self, url: str, expected: dict[tuple[str, str], str]) -> None:
        self.url, self.expected, self.dice = url, expected, random.Random(0)
        self.host = url.removeprefix("http://").split(":")
        self.http = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=20))
        self.open: list[socket.socket] = []
        weights = {"good": 5, "several": 1, "weighed": 1, "continued": 1, "bad": 2, "malformed": 1, "oversized": 1}
        weights |= {"aborted": 2, "slow": 1, "half": 1, "foreign": 1}
        self.kinds = self.dice.choices([*weights], [*weights.values()], k=1000)

    def send(self, kind: str) -> None:
        model, prompt = self.dice.choice(MODELS), self.dice.choice(PROMPTS)
        body = {**asked(model, prompt, 6), **(NUMBERS if model == "mixture" else {})}
        body.pop("extra_body", None)
        getattr(self, f"_{kind}")(body, self.expected[model, prompt])

    def close(self) -> None:
        self.http.close()
        for connection in self.open:
            connection.close()

    def _post(self, path: str = "chat/completions", **how) -> httpx.Response:
        return self.http.post(f"{self.url}/v1/{path}", **how)

    def _good(self, body: dict, text: str) -> None:
        answer = self._post(json=body)
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == text

    def _several(self, body: dict, text: str) -> None:
        answer = self._post(json={**body, "n": 3, "temperature": 0})
        assert [choice["message"]["content"] for choice in answer.json()["choices"]] == [text] * 3

    def _weighed(self, body: dict, text: str) -> None:
        (choice,) = self._post(
            json={**body, "logprobs": True, "stop": "never said", "top_p": 0.5, "temperature": 0}
        ).json()["choices"]
        assert choice["message"]["content"] == text
        assert 0 < len(choice["logprobs"]["content"]) <= 6

    def _continued(self, body: dict, text: str) -> None:
        prompt = body.pop("messages")[0]["content"]
        answer = self._post("completions", json={**body, "prompt": prompt, "echo": True, "logprobs": 1})
        assert answer.json()["choices"][0]["text"].startswith(prompt)

    def _bad(self, body: dict, text: str) -> None:
        refused, status, _ = self.dice.choice([*REFUSED.values()])
        assert self._post(json=refused).status_code == status

    def _malformed(self, body: dict, text: str) -> None:
        assert self._post(content=b"{" * self.dice.randint(1, 90)).status_code == 400

    def _oversized(self, body: dict, text: str) -> None:
        assert self._post(content=b"x" * 20_001).status_code == 413

    def _foreign(self, body: dict, text: str) -> None:
        assert self._post(json=body, headers={"Host": "evil.example"}).status_code == 421

    def _aborted(self, body: dict, text: str) -> None:
        raw = json.dumps({**body, "max_tokens": 60, "stream": self.dice.random() < 0.5}).encode()
        with socket.create_connection(self.host, timeout=60) as connection:
            connection.sendall(head(raw) + raw)

    def _slow(self, body: dict, text: str) -> None:
        raw = json.dumps(body).encode()
        with socket.create_connection(self.host, timeout=60) as connection:
            connection.sendall(head(raw))
            for start in range(0, len(raw), 40):
                connection.sendall(raw[start : start + 40])
                time.sleep(0.005)
            assert connection.recv(4096).split()[1] == b"200"

    def _half(self, body: dict, text: str) -> None:
        self.open.append(socket.create_connection(self.host, timeout=60))
        self.open[-1].sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: local")
