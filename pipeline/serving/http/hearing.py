"""What the engine tells of one request's answers, brought from its thread into the server's loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request

from pipeline.serving.choosing import Options, Weighed
from pipeline.serving.engine import Engine
from pipeline.serving.http.refusals import as_refusal
from pipeline.serving.http.replies import Heard, Reply
from pipeline.serving.jobs import Answered, Decision, Job, Strategy

News = Decision | Weighed | str | Answered | Exception


class Gone(Exception):
    """The client did not wait."""


@dataclass(frozen=True)
class Question:
    """A prompt. turns: what a first pass reads. ids: what is answered. echo: the text to be told before the answer.

    plain, shrinks: see ``Job``.
    """

    turns: Sequence[dict[str, str]]
    ids: Sequence[int]
    echo: str = ""
    plain: bool = True
    shrinks: bool = False


@dataclass(frozen=True)
class Told:
    """What was told of one answer. tokens: those that belong to it."""

    index: int
    news: Decision | str | Answered
    tokens: Sequence[Weighed]
    heard: Heard

    def event(self, reply: Reply) -> dict[str, Any]:
        """As an event of a stream."""
        if isinstance(self.news, Decision):
            return reply.begin(self.index, self.heard)
        if isinstance(self.news, Answered):
            return reply.end(self.index, self.news, self.tokens)
        return reply.piece(self.index, self.news, self.tokens)


class Hearing:
    """The answers of one request: asked for, heard of as they are written, and given up when nobody waits."""

    def __init__(self, request: Request, engine: Engine) -> None:
        self._request, self._engine = request, engine
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, News]] = asyncio.Queue()
        self._jobs: list[Job] = []
        self._untold: list[list[Weighed]] = []
        self.heard: list[Heard] = []

    def ask(
        self, questions: Sequence[Question], strategy: Strategy, options: Options, several: int, seconds: float
    ) -> None:
        """Put jobs in line, ``several`` for each question; their seeds follow on the options' one."""
        for question in questions:
            for number in range(several):
                own = replace(options, seed=options.seed + number, max_new_tokens=max(1, options.max_new_tokens))
                tell = self._teller(len(self._jobs))
                job = Job(
                    question.turns,
                    strategy,
                    own,
                    tell,
                    prompt=[*question.ids],
                    plain=question.plain,
                    shrinks=question.shrinks,
                    seconds=seconds,
                )
                self._jobs.append(job)
                self._untold.append([])
                self.heard.append(Heard(question.echo, nothing_new=options.max_new_tokens == 0))
        for job in self._jobs:
            self._engine.submit(job)

    def _teller(self, index: int) -> Callable[[News], None]:
        def tell(news: News) -> None:
            with contextlib.suppress(RuntimeError):  # the server is ending, and its loop is closed
                self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, news))

        return tell

    async def news(self) -> AsyncIterator[Told]:
        """What is told, until all answers are there. Raises Refused where one of them failed, and Gone."""
        left = len(self._jobs)
        while left:
            index, news = await self._next()
            heard, tokens = self.heard[index], self._untold[index]
            if isinstance(news, Exception):
                raise as_refusal(news)
            if isinstance(news, Weighed):
                if news.prompt or not heard.nothing_new:
                    tokens.append(news)
                    heard.tokens.append(news)
                continue
            if isinstance(news, Decision):
                heard.decision = news
            elif isinstance(news, Answered):
                heard.answered = news = replace(news, text="", tokens=0, ended="length") if heard.nothing_new else news
                left -= 1
            elif heard.nothing_new:
                continue
            with_text = () if isinstance(news, Decision) else tuple(tokens)
            if with_text:
                tokens.clear()
            yield Told(index, news, with_text, heard)

    async def _next(self) -> tuple[int, News]:
        while not await self._request.is_disconnected():
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._queue.get(), 0.5)
        raise Gone

    def leave(self) -> None:
        """Nobody waits for these answers any more."""
        for job in self._jobs:
            self._engine.cancel(job)
