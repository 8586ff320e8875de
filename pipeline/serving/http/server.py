"""The application: routes, the jobs that a request becomes, and the thread that runs the engine.

One thread owns the model and runs the engine; requests put jobs in line and hear of them through queues of their own,
so a slow reader keeps nothing waiting but itself: its row writes its answer to the end and leaves. A reader that is
gone, or an answer that takes too long, takes its row with it at the next step.
"""

import asyncio
import contextlib
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from pipeline.core.errors import UserError
from pipeline.serving.assistant import NEW_TOKENS, Assistant, chat_of
from pipeline.serving.choosing import Options
from pipeline.serving.engine import Engine
from pipeline.serving.http import bodies
from pipeline.serving.http.bodies import Asked, Chat, Completion
from pipeline.serving.http.connections import protocol
from pipeline.serving.http.guard import HEALTH, Guard, known_hosts
from pipeline.serving.http.hearing import Gone, Hearing, Question
from pipeline.serving.http.limits import Limits
from pipeline.serving.http.refusals import GONE, Refused, as_json, as_refusal, response
from pipeline.serving.http.replies import DONE, ChatReply, Reply, TextReply, line
from pipeline.serving.jobs import Strategy

KNOWN = "GET /v1/models, POST /v1/chat/completions, POST /v1/completions, GET /health"


class Server:
    """The application and the thread that runs the engine.

    hosts: names that requests may be meant for, beside this machine's own. key: that they must carry; empty: none.
    """

    def __init__(self, assistant: Assistant, limits: Limits, *, hosts: Iterable[str] = (), key: str = "") -> None:
        self.assistant, self.limits = assistant, limits
        self.engine: Engine = assistant.engine
        self.started = int(time.time())
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._resolving = asyncio.Lock()
        self._arriving = 0  # answers on their way to the engine's line
        self.app = FastAPI(lifespan=self._lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        for path, endpoint in (
            ("/v1/models", self.models),
            ("/v1/models/{name:path}", self.model),
            (HEALTH, self.health),
        ):
            self.app.add_api_route(path, endpoint, methods=["GET", "HEAD"])
        self.app.post("/v1/chat/completions")(self.chat)
        self.app.post("/v1/completions")(self.complete)
        self.app.add_middleware(Guard, hosts=known_hosts(hosts), key=key)
        self.app.add_exception_handler(Refused, _failed)
        self.app.add_exception_handler(404, _no_route)
        self.app.add_exception_handler(405, _no_route)
        self.app.add_exception_handler(Exception, _failed)

    def config(self, **more: Any) -> uvicorn.Config:
        """How uvicorn serves it. more: settings of uvicorn's."""
        return uvicorn.Config(
            self.app, http=protocol(self.limits), access_log=False, timeout_keep_alive=15, ws="none", **more
        )

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
        self._full(name)
        return self._entry(name)

    async def chat(self, request: Request) -> Response:
        asked = bodies.read(Chat, await self._body(request))
        try:
            turns = chat_of(asked.turns)
            ids = await asyncio.to_thread(self.engine.prompt_ids, turns)  # in a thread: a long one takes its time
        except UserError as error:
            raise Refused(400, str(error), field="messages") from None
        logprobs = asked.top_logprobs if asked.logprobs else None
        options = self._options(asked, asked.tokens or min(NEW_TOKENS, self.limits.max_new_tokens), logprobs=logprobs)
        reply = ChatReply(asked.model, self.assistant.base.tokenizer, several=asked.n)
        question = Question(turns, ids, plain=asked.plain, shrinks=asked.tokens is None)
        return await self._answer(request, asked, [question], options, reply)

    async def complete(self, request: Request) -> Response:
        asked = bodies.read(Completion, await self._body(request))
        tokenizer = self.assistant.base.tokenizer
        questions = await asyncio.to_thread(self._texts, asked)
        reply = TextReply(asked.model, tokenizer, several=asked.n)
        tokens = bodies.CONTINUED if asked.max_tokens is None else asked.max_tokens
        options = self._options(asked, tokens, logprobs=asked.logprobs, echo=asked.echo)
        return await self._answer(request, asked, questions, options, reply)

    # ---- from a request to jobs --------------------------------------------------------------------------------------

    def _texts(self, asked: Completion) -> list[Question]:
        """The texts to continue, as tokens; a first pass reads them as a user's question."""
        tokenizer, questions = self.assistant.base.tokenizer, []
        for prompt in asked.prompts:
            ids = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
            if not ids:
                raise Refused(400, "expected a prompt, got an empty one; write one", field="prompt")
            if not all(0 <= id_ < len(tokenizer) for id_ in ids):
                raise Refused(
                    400, f"expected token ids from 0 to {len(tokenizer) - 1}, got another; correct them", field="prompt"
                )
            text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
            questions.append(Question([{"role": "user", "content": text}], ids, text if asked.echo else ""))
        if not questions:
            raise Refused(400, "expected a prompt, got none; write one", field="prompt")
        return questions

    def _options(self, asked: Asked, tokens: int, **more: Any) -> Options:
        if tokens > self.limits.max_new_tokens:
            raise Refused(
                400,
                f"expected at most {self.limits.max_new_tokens} new tokens, got {tokens}; ask for fewer",
                field="max_tokens",
            )
        return Options(
            max_new_tokens=tokens,
            stop=asked.stops,
            temperature=asked.heat,
            top_p=asked.top_p,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            seed=asked.seed if asked.seed is not None else uuid.uuid4().int % 2**62,
            **more,
        )

    async def _answer(
        self, request: Request, asked: Asked, questions: Sequence[Question], options: Options, reply: Reply
    ) -> Response:
        """Put the jobs of a request in line, and answer with what comes of them."""
        count = len(questions) * asked.n
        if count > self.limits.answers:
            raise Refused(
                400, f"expected at most {self.limits.answers} answers to a request, got {count}; ask for fewer"
            )
        if sum(self.engine.load) + self._arriving + count > self.limits.queue + self.engine.rows:
            raise Refused(
                429,
                f"expected room in line, but {self.limits.queue} answers are waiting; ask again later",
                "rate_limit_error",
            )
        hearing = Hearing(request, self.engine)
        self._arriving += count
        try:
            strategy = await self._strategy(asked)
            # In a thread: a job may take its time to be checked.
            await asyncio.to_thread(hearing.ask, questions, strategy, options, asked.n, self.limits.seconds)
        except UserError as error:
            hearing.leave()
            raise Refused(400, str(error)) from None
        finally:
            self._arriving -= count
        if asked.stream:
            counted = bool(asked.stream_options and asked.stream_options.include_usage)
            return await self._streamed(hearing, reply, counted=counted)
        return await self._whole(hearing, reply)

    async def _strategy(self, asked: Asked) -> Strategy:
        available = self.assistant.available
        async with self._resolving:  # reads files, or mixes experts: not in the loop, and one at a time
            if asked.mixture is not None:
                if asked.model != "mixture":
                    raise Refused(
                        400,
                        f"expected 'mixture' as the model of a mixture in numbers, got '{asked.model[:80]}'; ask so",
                        field="model",
                    )
                return await asyncio.to_thread(available.mixture, asked.mixture, asked.mix)
            return await asyncio.to_thread(available.named, self._full(asked.model))

    def _full(self, model: str) -> str:
        """A model's whole name. Nothing is read from a file of this machine because a request names it."""
        names = self.assistant.strategies()
        with contextlib.suppress(UserError):
            if (full := self.assistant.project.full(model)) in names:
                return full
        known = ", ".join(names)
        raise Refused(
            404,
            f"expected one of the models {known}, or 'mixture' with numbers, got '{model[:80]}'; correct it",
            field="model",
        )

    async def _body(self, request: Request) -> bytes:
        """The request's bytes, as long as they come in time and are not too many."""
        limit = self.limits.body_bytes
        too_large = Refused(413, f"expected a request of at most {limit} bytes, got more; shorten it")
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or len(declared) > 18 or int(declared) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(min(30.0, self.limits.seconds)):
                async for part in request.stream():
                    body += part
                    if len(body) > limit:
                        raise too_large
        except ClientDisconnect:
            raise Refused(GONE, "expected the whole request, but its client is gone; ask again") from None
        except TimeoutError:
            raise Refused(
                408, "expected the whole request in time, got a part of it; send it faster", "timeout_error"
            ) from None
        return bytes(body)

    # ---- answers -----------------------------------------------------------------------------------------------------

    async def _whole(self, hearing: Hearing, reply: Reply) -> Response:
        try:
            async for _ in hearing.news():
                pass
        except Gone:
            return Response(status_code=GONE)
        finally:
            hearing.leave()
        return JSONResponse(reply.whole(hearing.heard))

    async def _streamed(self, hearing: Hearing, reply: Reply, *, counted: bool) -> Response:
        """counted: the last event says what the answers cost."""
        news = hearing.news()
        try:
            first = await anext(news)  # before the headers, so that an error still has its status
        except Gone:
            hearing.leave()
            return Response(status_code=GONE)
        except BaseException:
            hearing.leave()
            raise

        async def events() -> AsyncIterator[str]:
            try:
                yield line(first.event(reply))
                async for told in news:
                    yield line(told.event(reply))
                if counted:
                    yield line(reply.usage(hearing.heard))
                yield DONE
            except Gone:
                return
            except Exception as error:
                yield line(as_json(as_refusal(error)))
            finally:
                hearing.leave()

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


async def _failed(request: Request, error: Exception) -> Response:
    return response(error)


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405; and OPTIONS of a path that is there, which says what it takes."""
    status = getattr(error, "status_code", 404)
    methods = (getattr(error, "headers", None) or {}).get("Allow", "")
    if status == 404:
        return response(Refused(404, f"expected {KNOWN}, got {request.method} {request.url.path[:80]}; correct it"))
    allowed = {"Allow": f"{methods}, OPTIONS"}
    if request.method != "OPTIONS":
        return response(
            Refused(405, f"expected {KNOWN}, got {request.method} {request.url.path[:80]}; correct it"), allowed
        )
    wanted = request.headers.get("access-control-request-headers", "Authorization, Content-Type")
    preflight = {"Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": wanted}
    return Response(status_code=204, headers={**allowed, **preflight})


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


def run(
    folder: Path, *, host: str, port: int, rows: int, limits: Limits, hosts: Iterable[str] = (), key: str = ""
) -> None:
    """Serve until Ctrl-C or SIGTERM. rows: answers at once. hosts, key: see ``Server``."""
    bound = _bound(host, port)
    print("loading the base model …", flush=True)
    server = Server(Assistant.open(folder, rows=rows), limits, hosts=[host, *hosts], key=key)
    models = len(server.assistant.strategies())
    print(f"serving {models} models on http://{host}:{bound.getsockname()[1]}/v1 (Ctrl-C ends this)", flush=True)
    uvicorn.Server(server.config(log_level="warning", timeout_graceful_shutdown=5)).run(sockets=[bound])
