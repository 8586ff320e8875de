"""A server on a port of its own, and requests that it has to refuse."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

from pipeline.serving.http import Limits, Server

LIMITS = Limits(queue=40, body_bytes=20_000, max_new_tokens=60, seconds=90)


@contextmanager
def served(server: Server):
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(server.app, log_level="error", access_log=False))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)


# What is asked, the status of the answer, and words of its sentence.
USER = [{"role": "user", "content": "def"}]
REFUSED = {
    "no model": ({"messages": USER}, 400, "'model'"),
    "no messages": ({"model": "base"}, 400, "'messages'"),
    "an empty list of messages": ({"model": "base", "messages": []}, 400, "list of chat turns"),
    "messages of another type": ({"model": "base", "messages": "def"}, 400, "'messages'"),
    "a turn without text": ({"model": "base", "messages": [{"role": "user"}]}, 400, "'content'"),
    "an unknown role": ({"model": "base", "messages": [{"role": "me", "content": "x"}]}, 400, "role of turn 1"),
    "an empty prompt": ({"model": "base", "messages": [{"role": "user", "content": " "}]}, 400, "empty one"),
    "an image": (
        {"model": "base", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        400,
        "'content'",
    ),
    "the assistant last": (
        {"model": "base", "messages": [*USER, {"role": "assistant", "content": "x"}]},
        400,
        "last turn to be the user's",
    ),
    "too many tokens": ({"model": "base", "messages": USER, "max_tokens": 61}, 400, "at most 60 new tokens"),
    "no tokens": ({"model": "base", "messages": USER, "max_tokens": 0}, 400, "'max_tokens'"),
    "tokens in words": ({"model": "base", "messages": USER, "max_tokens": "many"}, 400, "'max_tokens'"),
    "a prompt beyond the context": (
        {"model": "base", "messages": [{"role": "user", "content": "12 + " * 1000}]},
        400,
        "expected at most 512 tokens",
    ),
    "a negative temperature": ({"model": "base", "messages": USER, "temperature": -1}, 400, "'temperature'"),
    "several answers": ({"model": "base", "messages": USER, "n": 2}, 400, "'n'"),
    "a nucleus": ({"model": "base", "messages": USER, "top_p": 0.5}, 400, "'top_p'"),
    "a tool": ({"model": "base", "messages": USER, "tools": [{}]}, 400, "'tools'"),
    "a stop word": ({"model": "base", "messages": USER, "stop": ["x"]}, 400, "'stop'"),
    "a mixture of nothing": ({"model": "mixture", "messages": USER, "mixture": {}}, 400, "got none"),
    "a mixture of the unknown": ({"model": "mixture", "messages": USER, "mixture": {"x": 1}}, 400, "got 'x'"),
    "a mixture in words": ({"model": "mixture", "messages": USER, "mixture": {"sums": "1"}}, 400, "'mixture.sums"),
    "too many layers": ({"model": "mixture", "messages": USER, "mixture": {"sums": [1, 1, 1]}}, 400, "2 layers"),
    "a huge coefficient": ({"model": "mixture", "messages": USER, "mixture": {"sums": 1e9}}, 400, "1000"),
    "one expert twice": (
        {"model": "mixture", "messages": USER, "mixture": {"sums": 1, "sums-0": 1}},
        400,
        "each expert once",
    ),
    "a mixture beside a model": ({"model": "base", "messages": USER, "mixture": {"sums": 1}}, 400, "'mixture'"),
    "another way of mixing": (
        {"model": "mixture", "messages": USER, "mixture": {"sums": 1}, "mix": "x"},
        400,
        "'mix'",
    ),
}
