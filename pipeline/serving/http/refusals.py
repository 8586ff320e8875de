"""Requests that get no answer: the status, one sentence, and OpenAI's JSON for it."""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from pipeline.core.errors import UserError
from pipeline.serving.jobs import Late

log = logging.getLogger("selfadapt.serve")
GONE = 499  # for the log alone: the client did not wait


class Refused(Exception):
    """A request that gets no answer.

    kind: OpenAI's name for such errors. field: of the body, where one is to blame.
    """

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", *, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.field = status, kind, field


def as_refusal(error: Exception) -> Refused:
    """Any error as a refusal; one that is the server's own fault keeps its insides for the log."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Late):
        return Refused(503, str(error), "timeout_error")
    if isinstance(error, UserError):
        return Refused(400, str(error))
    log.error("an answer failed", exc_info=error)
    return Refused(
        500, "expected an answer, but it failed on the server, whose log says why; ask again", "server_error"
    )


def as_json(refused: Refused) -> dict[str, Any]:
    """The body of an error's response."""
    about = {"message": str(refused), "type": refused.kind, "param": refused.field, "code": refused.status}
    return {"error": about}


def response(error: Exception, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response to a request that failed."""
    refused = as_refusal(error)
    later = {"Retry-After": "1"} if refused.status in (429, 503) else {}
    return JSONResponse(as_json(refused), refused.status, headers={**later, **(headers or {})})
