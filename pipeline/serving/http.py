"""The server: OpenAI's ``/v1/models`` and ``/v1/chat/completions`` before the engine.

A request's ``model`` is a strategy's name. A mixture can also be sent in numbers, as ``{"model": "mixture",
"mixture": {"sums": 0.7, "functions": 0.3}}`` (with the openai client, in ``extra_body``). What the first pass decided
comes back as ``selfadapt`` beside the usual fields.

One thread owns the model and runs the engine; requests put jobs in line and hear of them through queues of their own,
so a slow reader keeps nothing waiting but itself: its row writes its answer to the end and leaves. A reader that is
gone, or an answer that takes too long, takes its row with it at the next step.

Status codes: 400 what was asked cannot be done (and 404 for an unknown model), 408 the request did not arrive in time,
413 it is too large, 429 too many are waiting, 500 a fault of ours, 503 its time was over before its turn came.
"""

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from pipeline.core.errors import UserError
from pipeline.serving.assistant import Assistant, chat_of
from pipeline.serving.engine import Answered, Decision, Engine, Job, Late, Strategy

log = logging.getLogger("selfadapt.serve")
GONE = 499  # a status for the log alone: the client did not wait
News = Decision | str | Answered | Exception


@dataclass(frozen=True)
class Limits:
    """What one request may cost. queue: requests in line. seconds: from its arrival to its last token."""

    queue: int = 128
    body_bytes: int = 1_000_000
    max_new_tokens: int = 1024
    seconds: float = 120.0


class Refused(Exception):
    """A request that gets no answer: the status, and a sentence."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class Chat(BaseModel):
    """The body of a chat request. What would change the answer and is not done here is refused, not ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str = Field(max_length=300)
    messages: list[dict[str, Any]]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    mixture: dict[str, float | list[float]] | None = None
    mix: Literal["paper", "delta"] | None = None
    # Taken at the one value that says "as it is".
    n: Literal[1] | None = None
    top_p: float | None = Field(None, ge=1, le=1)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    logprobs: Literal[False] | None = None
    stop: list[str] | None = Field(None, max_length=0)
    tools: list[Any] | None = Field(None, max_length=0)
    response_format: dict[Literal["type"], Literal["text"]] | None = None


def _read(body: bytes) -> Chat:
    try:
        return Chat.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the body"
        raise Refused(400, f"'{place}' does not fit: {problem['msg'].lower()}; correct the request") from None


def _plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns, with text where a client sends a list of parts of text, and 'system' for its newer name."""
    plain = []
    for turn in messages:
        role, content = turn.get("role"), turn.get("content")
        if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
            content = "".join(part["text"] for part in content)
        plain.append({**turn, "content": content, "role": "system" if role == "developer" else role})
    return plain


class Server:
    """The application and the thread that runs the engine."""

    def __init__(self, assistant: Assistant, limits: Limits) -> None:
        self.assistant, self.limits = assistant, limits
        self.engine: Engine = assistant.engine
        self.started = int(time.time())
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._resolving = asyncio.Lock()
        self._arriving = 0  # requests on their way to the engine's line
        self.app = FastAPI(lifespan=self._lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        self.app.get("/v1/models")(self.models)
        self.app.get("/v1/models/{name:path}")(self.model)
        self.app.post("/v1/chat/completions")(self.chat)
        self.app.get("/health")(self.health)
        self.app.add_exception_handler(Refused, _refusal)
        self.app.add_exception_handler(404, _no_route)
        self.app.add_exception_handler(405, _no_route)
        self.app.add_exception_handler(Exception, _fault)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._thread.start()
        yield
        self._ending.set()
        await asyncio.to_thread(self._thread.join, 10)

    def _work(self) -> None:
        while not self._ending.is_set():
            if not self.engine.step():
                self.engine.wait(0.5)

    # ---- routes ------------------------------------------------------------------------------------------------------

    async def health(self) -> dict[str, Any]:
        running, waiting = self.engine.load
        return {"status": "ok", "running": running, "waiting": waiting}

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.started, "owned_by": "selfadapt"}

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._entry(name) for name in self.assistant.strategies()]}

    async def model(self, name: str) -> dict[str, Any]:
        if name not in self.assistant.strategies():
            raise _unknown(name, self.assistant.strategies())
        return self._entry(name)

    async def chat(self, request: Request) -> Response:
        asked = _read(await self._body(request))
        tokens = asked.max_completion_tokens or asked.max_tokens or min(256, self.limits.max_new_tokens)
        if tokens > self.limits.max_new_tokens:
            raise Refused(400, f"expected at most {self.limits.max_new_tokens} new tokens, got {tokens}; ask for fewer")
        if sum(self.engine.load) + self._arriving >= self.limits.queue + self.engine.rows:
            raise Refused(429, f"{self.limits.queue} requests are waiting; ask again later", "rate_limit_error")
        heard: asyncio.Queue[News] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(news: News) -> None:
            with contextlib.suppress(RuntimeError):  # the server is ending, and its loop is closed
                loop.call_soon_threadsafe(heard.put_nowait, news)

        self._arriving += 1
        try:
            job = Job(
                chat_of(_plain(asked.messages)),
                await self._strategy(asked),
                tokens,
                tell,
                temperature=asked.temperature or 0.0,
                seed=asked.seed if asked.seed is not None else uuid.uuid4().int % 2**63,
                seconds=self.limits.seconds,
            )
            # In a thread: a long prompt takes its time to be cut into tokens.
            await asyncio.to_thread(self.engine.submit, job)
        except UserError as error:
            raise Refused(400, str(error)) from None
        finally:
            self._arriving -= 1
        answer = self._streamed if asked.stream else self._whole
        return await answer(request, asked, job, heard)

    async def _strategy(self, asked: Chat) -> Strategy:
        available = self.assistant.available
        async with self._resolving:  # reads files, or mixes experts: not in the loop, and one at a time
            if asked.mixture is not None:
                if asked.model != "mixture":
                    raise Refused(400, f"expected 'mixture' as the model of a mixture in numbers, got '{asked.model}'")
                return await asyncio.to_thread(available.mixture, asked.mixture, asked.mix)
            name = self._full(asked.model)
            if name not in available.names():  # no file of this machine is read because a request names it
                raise _unknown(asked.model, available.names())
            return await asyncio.to_thread(available.named, name)

    def _full(self, name: str) -> str:
        """``expert:svf-sums-0`` for ``expert:sums``."""
        project = self.assistant.project
        kind, _, rest = name.partition(":")
        with contextlib.suppress(UserError):
            if kind == "expert":
                return f"expert:{project.expert(rest)}"
            if kind == "lora":
                return f"lora:{project.lora(rest)}"
        return name

    async def _body(self, request: Request) -> bytes:
        """The request's bytes, as long as they come in time and are not too many."""
        limit = self.limits.body_bytes
        too_large = Refused(413, f"expected a request of at most {limit} bytes; shorten it")
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(min(30.0, self.limits.seconds)):
                async for part in request.stream():
                    body += part
                    if len(body) > limit:
                        raise too_large
        except ClientDisconnect:
            raise Refused(GONE, "expected the whole request, but its client is gone") from None
        except TimeoutError:
            raise Refused(408, "expected the whole request in time; send it faster", "timeout_error") from None
        return bytes(body)

    # ---- answers -----------------------------------------------------------------------------------------------------

    async def _next(self, request: Request, heard: asyncio.Queue[News]) -> News | None:
        """What the engine tells next; None where the client is gone."""
        while not await request.is_disconnected():
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(heard.get(), 0.5)
        return None

    async def _whole(self, request: Request, asked: Chat, job: Job, heard: asyncio.Queue[News]) -> Response:
        news: News | None = ""
        try:
            while not isinstance(news, Answered):
                news = await self._next(request, heard)
                if news is None:
                    return Response(status_code=GONE)
                if isinstance(news, Exception):
                    raise _as_refusal(news)
        finally:
            self.engine.cancel(job)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": news.text, "refusal": None},
            "logprobs": None,
            "finish_reason": _reason(news),
        }
        head = _head(asked, "chat.completion")
        return JSONResponse({**head, "choices": [choice], "usage": _usage(news), "selfadapt": _decision(news.decision)})

    async def _streamed(self, request: Request, asked: Chat, job: Job, heard: asyncio.Queue[News]) -> Response:
        try:
            first = await self._next(request, heard)  # before the headers, so that an error still has its status
            if isinstance(first, Exception):
                raise _as_refusal(first)
        except BaseException:
            self.engine.cancel(job)
            raise

        async def events() -> AsyncIterator[str]:
            head = _head(asked, "chat.completion.chunk")
            news: News | None = first
            try:
                while news is not None:
                    if isinstance(news, Decision):
                        yield _event(head, {"role": "assistant", "content": ""}, selfadapt=_decision(news))
                    elif isinstance(news, str):
                        yield _event(head, {"content": news})
                    elif isinstance(news, Answered):
                        yield _event(head, {}, _reason(news))
                        if asked.stream_options and asked.stream_options.include_usage:
                            yield _line({**head, "choices": [], "usage": _usage(news)})
                        yield "data: [DONE]\n\n"
                        return
                    else:
                        yield _line(_error(_as_refusal(news)))
                        return
                    news = await self._next(request, heard)
            finally:
                self.engine.cancel(job)

        return _Stream(events(), 2 * self.limits.seconds)


class _Stream(StreamingResponse):
    """Server-sent events; a client that does not take them in time is let go."""

    def __init__(self, events: AsyncIterator[str], seconds: float) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._seconds = seconds

    async def __call__(self, *asgi: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await super().__call__(*asgi)


def _head(asked: Chat, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


def _line(value: Any) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _event(head: dict[str, Any], delta: dict[str, str], reason: str | None = None, **more: Any) -> str:
    return _line({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}], **more})


def _reason(answer: Answered) -> str:
    return "stop" if answer.ended == "stop" else "length"  # OpenAI has no word for an answer cut by time


def _usage(answer: Answered) -> dict[str, int]:
    total = answer.prompt_tokens + answer.tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens, "total_tokens": total}


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "chosen": decision.chosen,
        "weights": decision.weights,
        "first_pass_tokens": decision.tokens,
        "first_pass_seconds": decision.seconds,
    }


def _unknown(name: str, names: list[str]) -> Refused:
    return Refused(404, f"expected one of the models {', '.join(names)}, or 'mixture' with numbers, got '{name[:80]}'")


def _as_refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, Late):
        return Refused(503, str(error), "timeout_error")
    if isinstance(error, UserError):
        return Refused(400, str(error))
    log.error("an answer failed", exc_info=error)
    return Refused(500, "the answer failed on the server, whose log says why; ask again", "server_error")


def _error(error: Refused) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": error.kind, "param": None, "code": error.status}}


async def _refusal(request: Request, error: Exception) -> Response:
    refused = _as_refusal(error)
    headers = {"Retry-After": "1"} if refused.status in (429, 503) else None
    return JSONResponse(_error(refused), refused.status, headers=headers)


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    known = "GET /v1/models, POST /v1/chat/completions, GET /health"
    return JSONResponse(
        _error(Refused(status, f"expected {known}, got {request.method} {request.url.path[:80]}")), status
    )


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse(_error(_as_refusal(error)), 500)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UserError(
            f"expected to listen on {host}:{port}, but: {error.strerror or error}; choose another --host or --port"
        ) from None
    return bound


def run(folder: Path, *, host: str, port: int, rows: int, limits: Limits) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    bound = _bound(host, port)
    print("loading the base model …", flush=True)
    server = Server(Assistant.open(folder, rows=rows), limits)
    config = uvicorn.Config(
        server.app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        limit_concurrency=4 * (limits.queue + rows) + 16,
    )
    models = len(server.assistant.strategies())
    print(f"serving {models} models on http://{host}:{bound.getsockname()[1]}/v1 (Ctrl-C ends this)", flush=True)
    uvicorn.Server(config).run(sockets=[bound])
