"""What one request, and one client, may cost the server."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from pipeline.core.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds of the server.

    queue: answers in line; more are refused (429).
    answers: of one request, over all its prompts.
    body_bytes: of one request (413).
    max_new_tokens: of one answer.
    seconds: from a request's arrival to the last token of its answer.
    head_seconds: for the head of a request to arrive (408).
    connections: of one client at the same time.
    """

    queue: int = 128
    answers: int = 64
    body_bytes: int = 8_000_000
    max_new_tokens: int = 1024
    seconds: float = 120.0
    head_seconds: float = 10.0
    connections: int = 256

    @classmethod
    def of(cls, settings: Sequence[str]) -> "Limits":
        """The limits with some set to other numbers, each as ``queue=64``. Raises UserError for what is none."""
        usual = cls()
        kinds: dict[str, type[int] | type[float]] = {
            field.name: type(getattr(usual, field.name)) for field in fields(cls)
        }
        values: dict[str, Any] = {}
        for setting in settings:
            name, _, number = setting.partition("=")
            if name not in kinds:
                raise UserError(f"expected a limit out of {', '.join(kinds)}, got '{setting[:80]}'; correct it")
            try:
                values[name] = kinds[name](number)
            except ValueError:
                values[name] = -1
            if not 0 < values[name] < float("inf") and not (name == "queue" and values[name] == 0):
                kind = "a whole number" if kinds[name] is int else "a number"
                raise UserError(f"expected {kind} above 0 as the limit '{name}', got '{number[:80]}'; correct it")
        return cls(**values)
