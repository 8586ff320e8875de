"""The server on the run's own experts, asked by the openai client: many streams at once against one after the other."""

import asyncio
import time

import openai
import pytest

from pipeline.serving.assistant import Assistant
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.server import Server
from tests.serving import served

STREAMS, ALONE, TOKENS = 32, 6, 24
PROMPT = "Anna has {} apples and Ben has {}. Carl has as many as both. Explain step by step how many there are."


@pytest.fixture(scope="module")
def assistant():
    return Assistant.open(".")


@pytest.fixture(scope="module")
def asked(assistant):
    """(number) → the request of one stream: three experts and three mixtures in turns."""
    experts, mixtures = [*assistant.project.experts][:3], [*assistant.project.mixtures][:1]
    if len(experts) < 3 or not mixtures:
        pytest.skip("expected three experts and a mixture; run 'dvc repro' first")
    first, second, third = experts
    numbers = [{first: 0.5, second: 0.5}, {first: 0.2, third: 0.8}]
    ways = [*({"model": f"expert:{name}"} for name in experts), {"model": f"mixture:{mixtures[0]}"}]
    ways += [{"model": "mixture", "extra_body": {"mixture": value}} for value in numbers]

    def request(number: int) -> dict:
        text = PROMPT.format(number, 2 * number + 3)
        return {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, **ways[number % len(ways)]}

    return request


def test_streams_at_once_against_one_after_the_other(paired, assistant, asked):
    server = Server(assistant, Limits())

    async def ask(client: openai.AsyncOpenAI, number: int) -> int:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await client.chat.completions.create(**asked(number), **options)
        return [chunk.usage async for chunk in stream if chunk.usage][-1].completion_tokens

    async def rate(count: int, at_once: int) -> float:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:
            start, tokens = time.perf_counter(), 0
            for first in range(0, count, at_once):
                together = range(first, min(first + at_once, count))
                tokens += sum(await asyncio.gather(*(ask(client, number) for number in together)))
            return tokens / (time.perf_counter() - start)

    with served(server) as url:
        paired(
            "streams_at_once",
            lambda: asyncio.run(rate(STREAMS, STREAMS)),
            lambda: asyncio.run(rate(ALONE, 1)),
            unit="tokens per second of the server, streams at once over one request after the other",
            n=f"{STREAMS} streams × ≤ {TOKENS} tokens; 6 different experts and mixtures",
            inverted=True,
        )
