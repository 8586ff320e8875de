"""Who may ask at all: the host that a request is meant for, the origin of a web page, the API key.

*Host.* A page on the web can have its own name resolve to this machine and then read answers as if they were its own
(DNS rebinding). Its requests say the page's name as their host, so a host that is no address and no known name of
this machine is refused.

*Origin.* A page of a foreign origin could make a browser ask, if not read the answer. Origins on known hosts may do
both; ``--allow-host`` makes a host known.

*Key.* With ``--api-key`` all but ``/health`` needs it as ``Authorization: Bearer KEY``.
"""

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.http.connections import CROWDED
from pipeline.serving.http.refusals import Refused, response

HEALTH = "/health"


def known_hosts(named: Iterable[str]) -> frozenset[str]:
    """The names that a request may be meant for. named: beside the machine's own."""
    return frozenset(name.lower() for name in ("localhost", socket.gethostname(), *named) if name)


class Guard:
    """Lets a request pass, or refuses it before its body is read. key: the API key; empty: none is needed."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], key: str) -> None:
        self.app, self.hosts, self.key = app, hosts, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        asked = Headers(scope=scope)
        try:
            self._check(scope, asked)
        except Refused as refused:
            headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
            return await response(refused, headers)(scope, receive, send)
        origin = asked.get("origin")

        async def permit(message: Message) -> None:
            if message["type"] == "http.response.start" and origin:
                MutableHeaders(scope=message).update({"Access-Control-Allow-Origin": origin, "Vary": "Origin"})
            await send(message)

        await self.app(scope, receive, permit)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._known(f"//{host}"):
            raise Refused(
                421, f"expected a host that this server is known by, got '{host[:80]}'; start it with --allow-host NAME"
            )
        origin = headers.get("origin")
        if origin and not self._known(origin):
            raise Refused(
                403, f"expected a page on a known host to ask, got '{origin[:80]}'; start it with --allow-host NAME"
            )
        if scope["path"] == HEALTH:
            return
        if scope.get("state", {}).get(CROWDED):
            raise Refused(429, "expected fewer connections of one client, got too many; close some", "rate_limit_error")
        # A browser asks what it may send before it sends the key.
        if self.key and scope["method"] != "OPTIONS":
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.key.encode()):
                raise Refused(
                    401, "expected the server's API key, got none or another; send it", "authentication_error"
                )

    def _known(self, url: str) -> bool:
        """Whether a URL's host is this machine's, or an address: a page's name cannot resolve to those."""
        try:
            name = urlsplit(url).hostname or ""
        except ValueError:
            return False
        if name in self.hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
