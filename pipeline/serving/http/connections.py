"""Connections: a time limit for the head of a request, and a bound on how many one client holds.

A client that opens connections and never ends its heads would else keep everybody out, for as long as it likes. Where
a client has too many connections, its oldest one that waits for a request is closed. If all of them are being
answered, the new one is *crowded*: it can ask for ``/health`` alone (see ``guard``), so that whoever watches the server
can tell a busy one from a dead one.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.serving.http.limits import Limits

TOGETHER = 4  # times as many connections as one client's are open for all clients together
CROWDED = "crowded"  # the name in a request's state
LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Clients:
    """The open connections of every client, the oldest first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: "Connection") -> bool:
        """Note a new connection, and close an old one where there are too many; False where none could be closed."""
        own = self._open.setdefault(connection.name, {})
        own[connection] = None
        everybody = [other for connections in self._open.values() for other in connections]
        room = True
        for connections, bound in ((list(own), 1), (everybody, TOGETHER)):
            if len(connections) > bound * self.limits.connections:
                waiting = next((other for other in connections if other.waiting and other is not connection), None)
                if waiting is None:
                    room = False
                else:
                    self.leave(waiting)
                    waiting.transport.abort()
        return room

    def leave(self, connection: "Connection") -> None:
        """Forget a connection."""
        own = self._open.get(connection.name, {})
        own.pop(connection, None)
        if not own:
            self._open.pop(connection.name, None)


class Connection(H11Protocol):
    """uvicorn's connection, which a request has to reach in time."""

    def __init__(self, *args: Any, clients: Clients, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients = clients
        self._head: asyncio.TimerHandle | None = None  # runs while the head of a request is expected

    @property
    def name(self) -> str:
        """What tells its client from others."""
        return self.client[0] if self.client else ""

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waiting(self) -> bool:
        """A request, or the rest of one, is still to come."""
        return self.idle or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._clients.enter(self):
            self.app_state = {**self.app_state, CROWDED: True}
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self.idle:
            self._expect_head()
        super().data_received(data)
        if not self.idle:
            self._head_is_there()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        self._clients.leave(self)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self._clients.limits.head_seconds, self._late)

    def _head_is_there(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.write(LATE)
            self.transport.close()


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """What uvicorn makes a connection by. All connections made by it count together."""
    make: Callable[..., Connection] = partial(Connection, clients=Clients(limits))
    return cast(type[asyncio.Protocol], make)
