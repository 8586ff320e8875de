"""Connections that never ask for anything keep nobody out; hosts, origins and keys are checked before all else."""

import asyncio
import socket
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pipeline.core.errors import UserError
from pipeline.serving.http.connections import protocol
from pipeline.serving.http.guard import Guard, known_hosts
from pipeline.serving.http.limits import Limits
from tests.serving import running

HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Half: "
KEY = "a key"


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def think(request: Request) -> PlainTextResponse:
    await asyncio.sleep(2)
    return PlainTextResponse("thought")


@contextmanager
def guarded(limits: Limits, *, hosts: tuple[str, ...] = (), key: str = ""):
    """A server of one route and /health, behind the guard. Yields its address."""
    routes = [Route("/health", answer), Route("/ask", answer, methods=["GET", "POST"]), Route("/think", think)]
    app = Starlette(routes=routes)
    app.add_middleware(Guard, hosts=known_hosts(hosts), key=key)
    with running(uvicorn.Config(app, http=protocol(limits), log_level="error", access_log=False)) as url:
        yield url


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def received(connection: socket.socket, end: bytes) -> bytes:
    """What comes, up to the bytes that are waited for."""
    read = b""
    while end not in read and (part := connection.recv(1000)):
        read += part
    return read


def test_a_head_that_does_not_arrive_ends_its_connection():
    with guarded(Limits(head_seconds=0.3)) as url, connected(url) as silent, connected(url) as dripping:
        dripping.sendall(HALF)
        started = time.monotonic()
        for _ in range(5):
            dripping.sendall(b"x")
            time.sleep(0.02)
        for connection in (silent, dripping):
            assert b" 408 " in connection.recv(1000)
            assert connection.recv(1000) == b""
        assert time.monotonic() - started < 5


def test_the_second_head_on_a_connection_has_to_arrive_in_time_too():
    with guarded(Limits(head_seconds=0.3)) as url, connected(url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in received(connection, b"\r\n\r\n0")
        connection.sendall(HALF)
        assert b" 408 " in received(connection, b"\r\n\r\n")


def test_a_slow_answer_is_no_slow_head():
    with guarded(Limits(head_seconds=0.2)) as url, connected(url) as connection:
        connection.sendall(b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.5)
        connection.sendall(b"ab")
        assert received(connection, b"\r\n\r\n2").endswith(b"2")


def test_half_heads_by_the_hundred_keep_nobody_out():
    with guarded(Limits(connections=20, head_seconds=60)) as url, ExitStack() as stack:
        slow = [stack.enter_context(connected(url)) for _ in range(200)]
        for connection in slow:
            try:
                connection.sendall(HALF)
            except OSError:  # let go already
                continue
        for path in ("/health", "/ask"):
            started = time.monotonic()
            assert httpx.get(f"{url}{path}").status_code == 200
            assert time.monotonic() - started < 1


def test_a_client_whose_connections_are_all_being_answered_can_still_ask_for_health():
    with guarded(Limits(connections=3)) as url, ExitStack() as stack:
        busy = [stack.enter_context(connected(url)) for _ in range(3)]
        for connection in busy:
            connection.sendall(b"GET /think HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.2)
        refused = httpx.get(f"{url}/ask")
        assert refused.status_code == 429
        assert "fewer connections" in refused.json()["error"]["message"]
        assert httpx.get(f"{url}/health").status_code == 200
        for connection in busy:
            assert received(connection, b"thought").endswith(b"thought")
        assert httpx.get(f"{url}/ask").status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "10.1.2.3", "a.localhost"]
)
def test_a_request_for_this_machine_passes(host):
    with guarded(Limits()) as url:
        assert httpx.get(f"{url}/ask", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "[::1", "a b"]
)
def test_a_request_for_another_host_is_refused(host):
    with guarded(Limits()) as url:
        for path in ("/ask", "/health"):
            answer = httpx.get(f"{url}{path}", headers={"Host": host})
            assert answer.status_code in (400, 421)
    with guarded(Limits(), hosts=("evil.example",)) as url:
        assert httpx.get(f"{url}/ask", headers={"Host": "Evil.Example:80"}).status_code == 200


def test_a_page_of_a_foreign_origin_is_refused_and_one_on_this_machine_may_read():
    with guarded(Limits()) as url:
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            answer = httpx.post(f"{url}/ask", headers={"Origin": origin})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        answer = httpx.post(f"{url}/ask", headers={"Origin": "http://localhost:3000"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_key_is_asked_for_but_by_health():
    with guarded(Limits(), key=KEY) as url:
        assert httpx.get(f"{url}/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": KEY}, {"Authorization": "Bearer ké"}):
            encoded = {name: value.encode() for name, value in headers.items()}
            answer = httpx.get(f"{url}/ask", headers=encoded)
            assert answer.status_code == 401
            assert "API key" in answer.json()["error"]["message"]
            assert KEY not in answer.text
        assert httpx.get(f"{url}/ask", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_limits_are_set_one_by_one():
    assert Limits.of(["queue=0", "seconds=0.5"]) == Limits(queue=0, seconds=0.5)
    assert Limits.of([]) == Limits()


@pytest.mark.parametrize(
    "setting", ["", "queue", "queue=x", "queue=1.5", "queue=-1", "seconds=0", "seconds=nan", "x=1"]
)
def test_what_is_no_limit_is_one_sentence(setting):
    with pytest.raises(UserError, match="expected .*; correct it"):
        Limits.of([setting])
