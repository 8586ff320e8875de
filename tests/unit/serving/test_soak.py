"""A server in a process of its own, asked by 64 clients at once in forty ways, a fifth of them hostile.

Every honest answer equals that of an engine which answers nothing else, the server's health is told at once all the
while, and its memory stays what it was.

    SELFADAPT_SOAK=600 python -m pytest -s tests/unit/serving/test_soak.py    # ten minutes, and 2000 requests at least

SELFADAPT_SOAK is for how many seconds; `make test` sends each kind of request a few times.
"""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipeline.serving.assistant import Assistant
from pipeline.serving.choosing import Options
from pipeline.serving.http.limits import Limits
from pipeline.serving.jobs import Answered, Job
from tests.project import ROOT, make_project
from tests.serving import HI, REFUSED

SECONDS = float(os.environ.get("SELFADAPT_SOAK", "0"))
REQUESTS = 2000 if SECONDS else 120
CLIENTS = 64
SETTLED = 120.0  # seconds, after which the server's memory should be what it stays at
HEALTH_SECONDS = 1.0
GROWTH = 0.05  # of the memory at SETTLED

QUESTIONS = ["What is 12 + 30?", "Write a function.", "Who is the oldest? Anna, Ben or Carl.", "def"]
MIXED = {"sums": 0.7, "functions": 0.3}
LAYERS = {"sums": [0.4, 0.6], "kinds": [0.6, 0.4]}


@dataclass(frozen=True)
class Honest:
    """A request that is to be answered. strategy: a name, or the coefficients of a mixture. more: of the body.

    options: what ``more`` comes to for an engine. text: a text to be continued, not a chat's question.
    """

    strategy: str | Mapping[str, Any]
    question: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    text: bool = False

    @property
    def body(self) -> dict[str, Any]:
        named = (
            {"model": self.strategy}
            if isinstance(self.strategy, str)
            else {"model": "mixture", "mixture": self.strategy}
        )
        asked: dict[str, Any] = {"prompt": QUESTIONS[self.question]}
        if not self.text:
            asked = {"messages": [{"role": "user", "content": QUESTIONS[self.question]}]}
        return {"max_tokens": 12, **named, **asked, **self.more}

    def alone(self, assistant: Assistant) -> list[str]:
        """The answers of an engine that answers nothing else."""
        texts = []
        for number in range(self.body.get("n", 1)):
            told: list[Any] = []
            options = Options(**{"max_new_tokens": 12, **self.options})
            options = replace(options, seed=options.seed + number)
            turns = [{"role": "user", "content": QUESTIONS[self.question]}]
            ids = assistant.base.tokenizer(QUESTIONS[self.question])["input_ids"] if self.text else []
            turns = self.body.get("messages", turns)
            job = Job(turns, assistant.strategy(self.strategy), options, told.append, prompt=ids, plain=self.text)
            assistant.engine.finish([job])
            assert isinstance(told[-1], Answered), told[-1]
            texts.append(told[-1].text)
        return texts


SAMPLED = {"temperature": 1.2, "seed": 5}
HONEST = {
    **{
        f"asks {name}": Honest(name, number % 4)
        for number, name in enumerate(
            "base expert:sums expert:functions expert:kinds mixture:few_shot-groceries mixture:uniform-groceries "
            "lora:sums csreft loreft prompt classifier".split()
        )
    },
    **{
        f"hears {name} word by word": Honest(name, number % 4, {"stream": True})
        for number, name in enumerate(["base", "expert:functions", "lora:sums", "csreft", "prompt", "classifier"])
    },
    "mixes two": Honest(MIXED, 1),
    "mixes layer by layer": Honest(LAYERS, 2),
    "mixes word by word": Honest(MIXED, 3, {"stream": True}),
    "wants three": Honest("expert:sums", 1, {"n": 3, **SAMPLED}, SAMPLED),
    "draws": Honest("base", 0, SAMPLED, SAMPLED),
    "draws from a nucleus": Honest("expert:kinds", 2, {**SAMPLED, "top_p": 0.7}, {**SAMPLED, "top_p": 0.7}),
    "draws almost nothing": Honest("base", 3, {"temperature": 1e-40, "seed": 1}, {"temperature": 1e-40, "seed": 1}),
    "stops": Honest("base", 0, {"stop": ["e"]}, {"stop": ("e",)}),
    "wants log-probabilities": Honest("loreft", 1, {"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
    "does not like to hear things twice": Honest(
        "expert:sums", 2, {"frequency_penalty": 0.8}, {"frequency_penalty": 0.8}
    ),
    "wants much": Honest("base", 3, {"max_tokens": 60}, {"max_new_tokens": 60}),
    "wants one token": Honest("csreft", 0, {"max_tokens": 1}, {"max_new_tokens": 1}),
    "has a system": Honest("base", 0, {"messages": [{"role": "system", "content": "Be brief."}, *HI]}),
    "continues": Honest("base", 3, text=True),
    "continues under an expert": Honest("expert:functions", 0, {"stream": True}, text=True),
}
# What is sent, and the status of the answer; None: nobody waits for one.
HOSTILE = ["is refused", "is no JSON", "is nested", "is too large", "comes from elsewhere", "goes away", "says half"]
HOSTILE += ["does not read"]


def test_there_are_forty_kinds() -> None:
    assert len(HONEST) + len(HOSTILE) == 40


class Soak:
    """What the clients do. expected: kind → the texts of its answers."""

    def __init__(self, url: str, expected: Mapping[str, list[str]]) -> None:
        self.url, self.expected = url, expected
        self.host, self.port = url.removeprefix("http://").split(":")
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.waits: list[float] = []
        self.memory: list[tuple[float, int]] = []
        self._dice = random.Random(0)
        self._open: list[asyncio.StreamWriter] = []

    async def run(self, process: psutil.Process) -> None:
        """All clients, until there have been enough requests, for long enough."""
        self.started = time.monotonic()
        limits = httpx.Limits(max_connections=CLIENTS)
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(process, over))
        watching.start()
        async with httpx.AsyncClient(base_url=self.url, timeout=120, limits=limits) as http:
            await asyncio.gather(*(self._client(http) for _ in range(CLIENTS)))
        over.set()
        watching.join()
        for writer in self._open:
            writer.close()

    async def _client(self, http: httpx.AsyncClient) -> None:
        while self.sent.total() < REQUESTS or time.monotonic() - self.started < SECONDS:
            hostile = self._dice.random() < 0.2
            kind = self._dice.choice(HOSTILE if hostile else [*HONEST])
            self.sent["hostile" if hostile else "honest"] += 1
            try:
                await (self._hostile(http, kind) if hostile else self._honest(http, kind))
            except Exception as error:
                self.wrong.append(f"{kind}: {error!r}")

    def _watch(self, process: psutil.Process, over: threading.Event) -> None:
        """In a thread of its own: the clients' loop is busy."""
        with httpx.Client(base_url=self.url, timeout=30) as http:
            while not over.wait(0.25):
                started = time.monotonic()
                answer = http.get("/health")
                self.waits.append(time.monotonic() - started)
                if answer.status_code != 200:
                    self.wrong.append(f"/health: {answer.status_code}")
                self.memory.append((started - self.started, process.memory_info().rss))

    async def _honest(self, http: httpx.AsyncClient, kind: str) -> None:
        asked = HONEST[kind]
        answer = await http.post("/v1/completions" if asked.text else "/v1/chat/completions", json=asked.body)
        if answer.status_code != 200:
            self.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
            return
        if asked.body.get("stream"):
            lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
            parts = [choice for line in lines for choice in json.loads(line)["choices"]]
            texts = ["".join(part.get("text") or part.get("delta", {}).get("content") or "" for part in parts)]
        else:
            choices = answer.json()["choices"]
            texts = [choice["text"] if asked.text else choice["message"]["content"] for choice in choices]
        if texts != self.expected[kind]:
            self.wrong.append(f"{kind}: got {texts}, expected {self.expected[kind]}")

    async def _hostile(self, http: httpx.AsyncClient, kind: str) -> None:
        chat = "/v1/chat/completions"
        if kind == "is refused":
            body, status, _ = self._dice.choice([case for name, case in REFUSED.items() if name not in OF_LIMITS])
            answer = await http.post(chat, json=body)
        elif kind in ("is no JSON", "is nested"):
            text = b"{" if kind == "is no JSON" else b'{"model":' * 5000
            status, answer = 400, await http.post(chat, content=text)
        elif kind == "is too large":
            status, answer = 413, await http.post(chat, content=b"x" * (Limits().body_bytes + 1))
        elif kind == "comes from elsewhere":
            status, answer = 421, await http.post(chat, json=HONEST["draws"].body, headers={"Host": "evil.example"})
        else:
            await self._rude(kind)
            return
        if answer.status_code != status:
            self.wrong.append(f"{kind}: {answer.status_code} in place of {status}")

    async def _rude(self, kind: str) -> None:
        """Clients that do not play their part."""
        body = json.dumps({**HONEST["wants much"].body, "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        _, writer = await asyncio.open_connection(self.host, int(self.port))
        writer.write(head[:40] if kind == "says half" else head + body)
        await writer.drain()
        if kind == "goes away":
            writer.transport.abort()
            return
        self._open.append(writer)
        if len(self._open) > 40:
            self._open.pop(0).transport.abort()


OF_LIMITS = [name for name, (_, _, words) in REFUSED.items() if "new tokens" in words or "answers" in words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("made") / "project").folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address of ``selfadapt serve``, and its process."""
    command = [sys.executable, "-u", "-m", "selfadapt.cli", "serve", "--port", "0", "--rows", "16"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        for said in process.stdout:
            if "serving" in said:
                break
        url = re.search(r"http://[\d.:]+", said)
        assert url, said
        yield url[0], psutil.Process(process.pid)
        process.terminate()


@pytest.mark.timeout(SECONDS + 900)
def test_a_server_stays_what_it_was(folder: Path, server: tuple[str, psutil.Process]) -> None:
    assistant = Assistant.open(folder)
    expected = {kind: asked.alone(assistant) for kind, asked in HONEST.items()}
    soak = Soak(server[0], expected)
    asyncio.run(soak.run(server[1]))
    took = time.monotonic() - soak.started
    settled = next((held for moment, held in soak.memory if moment >= SETTLED), soak.memory[-1][1])
    growth = soak.memory[-1][1] / settled - 1
    slow = sum(wait > HEALTH_SECONDS for wait in soak.waits)
    print(
        f"\n{soak.sent.total()} requests ({soak.sent['hostile']} hostile) in {took:.0f} s, {CLIENTS} at once; "
        f"{len(soak.wrong)} wrong; /health asked {len(soak.waits)} times, at most {max(soak.waits):.2f} s, {slow} "
        f"times more than {HEALTH_SECONDS:g} s; memory "
        f"{settled / 2**20:.0f} MiB after {min(SETTLED, took):.0f} s, {soak.memory[-1][1] / 2**20:.0f} at the end "
        f"({100 * growth:+.1f} %)"
    )
    assert soak.wrong == []
    if SECONDS:  # a few seconds of a busy machine say nothing
        assert abs(growth) <= GROWTH
        assert max(soak.waits) < HEALTH_SECONDS
    assert httpx.get(f"{server[0]}/health").json()["status"] == "ok"
