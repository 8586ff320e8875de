"""What the body of a request may say, as OpenAI's API names it.

A field that would change the answer and is not served is refused, and so is one that nobody knows; a field that is
``null`` is as good as left out. Fields that change nothing here (who asks, what the request is filed under) are taken
and not read.
"""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.serving.http.refusals import Refused

MISSPELT = 0.9  # how alike a misspelt field and the right one are; less is another field
STOPS = 16  # stop texts of one request
CONTINUED = 16  # new tokens of a continued text that asks for no number, as in OpenAI's API
Stop = Annotated[str, Field(min_length=1, max_length=200)]


class StreamOptions(BaseModel):
    """include_usage: the last event says how many tokens there were."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class Asked(BaseModel):
    """What every request for answers may say.

    model: a strategy's name, or ``mixture`` where ``mixture`` holds its coefficients.
    n: answers to each prompt. seed: of the first one's draw; the others' follow.
    mixture: expert → its coefficient, or one for each decoder layer. mix: ``paper`` or ``delta`` (the project's).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(max_length=300)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS)] = Field([])
    mixture: dict[str, float | list[float]] | None = None
    mix: Literal["paper", "delta"] | None = None
    # Served at the one value that asks for nothing.
    logit_bias: dict[str, float] = Field({}, max_length=0)
    # Taken, and not read.
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {key: part for key, part in value.items() if part is not None} if isinstance(value, dict) else value

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def heat(self) -> float:
        """The temperature: 0 where none is asked for, unless the request can only want a draw."""
        if self.temperature is not None:
            return self.temperature
        return 1.0 if self.n > 1 or self.top_p < 1 else 0.0


class Chat(Asked):
    """A request for ``/v1/chat/completions``.

    logprobs: of the answer's tokens, with ``top_logprobs`` others each. plain: the turns stand as they are; else those
    that do not begin with a system turn are read in the form that the expert was trained in.
    """

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    plain: bool = False
    # Served at the one value that asks for nothing.
    tools: list[Any] = Field([], max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    functions: list[Any] = Field([], max_length=0)
    function_call: Literal["none", "auto"] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None
    # Taken, and not read.
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _likeliest_of_what_is_asked_for(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("expected top_logprobs together with logprobs, got it alone")
        return self

    @property
    def tokens(self) -> int | None:
        """The most new tokens of an answer; None where the request leaves them to the server."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The turns, with plain text where a client sends a list of its parts, and 'system' for its newer name.

        Parts that are pictures (``image_url``, a data URL) become the turn's ``images``. A turn has none else: a client
        names no file of this machine.
        """
        plain = []
        for turn in self.messages:
            role, content, shown = turn.get("role"), turn.get("content"), []
            if isinstance(content, list) and all(_is_text(part) or _is_picture(part) for part in content):
                shown = [_data_url(part) for part in content if _is_picture(part)]
                content = "".join(part["text"] for part in content if _is_text(part))
            told = {"content": content, "role": "system" if role == "developer" else role}
            plain.append({**told, "images": shown} if shown else told)
        return plain


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _data_url(part: dict[str, Any]) -> str:
    """The picture of a part. Raises Refused where it is named and not sent."""
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str) or not url.lower().startswith("data:"):
        raise Refused(
            400,
            f"expected a picture as a data URL in base64, got {str(url)[:60]!r}: nothing is fetched here; send the "
            "picture itself",
            field="messages",
        )
    return url


class Completion(Asked):
    """A request for ``/v1/completions``.

    prompt: a text, its token ids, or several of either. echo: the prompt stands before its continuation.
    logprobs: of every token told, with so many others each.
    """

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(None, ge=0)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    # Served at the one value that asks for nothing.
    best_of: int | None = None
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if self.best_of not in (None, self.n):
            raise ValueError(f"expected best_of to equal n, got {self.best_of} and {self.n}")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("expected at least 1 new token, or echo, got neither")
        return self

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        """One or more texts, or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # the ids of one text
        return self.prompt  # type: ignore[return-value]


Body = TypeVar("Body", bound=Asked)


def read(kind: type[Body], body: bytes) -> Body:
    """A request's body. Raises Refused, which names the field that does not fit."""
    try:
        value = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"expected JSON, got something else ({error}); correct the request") from None
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    field = _place(problem["loc"])
    raise Refused(400, _sentence(kind, field, dict(problem)), field=field if problem["loc"] else None)


def _place(parts: Sequence[str | int]) -> str:
    """The field's dotted name, without pydantic's names of the types that it was tried as."""
    named = [str(part) for part in parts if isinstance(part, int) or (part not in TYPES and "[" not in part)]
    return ".".join(named) or "the body"


def _sentence(kind: type[Asked], field: str, problem: dict[str, Any]) -> str:
    got = repr(problem["input"])[:60]
    if problem["type"] == "missing":
        return f"expected the field '{field}', got none; add it"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, kind.model_fields, n=1, cutoff=MISSPELT)
        hint = f"did you mean '{close[0]}'?" if close else "leave it out"
        return f"expected fields that this server serves, got '{field[:80]}'; {hint}"
    if problem["type"] == "value_error":
        return f"{problem['ctx']['error']}; correct the request"
    if problem["type"] in ("too_long", "literal_error") and field in UNSERVED:
        return f"expected no '{field}', which this server does not serve, got {got}; leave it out"
    said = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"expected another value, since '{field}' does not fit: {said}, got {got}; correct the request"


TYPES = ("str", "int", "float", "constrained-str")
UNSERVED = ("logit_bias", "tools", "functions", "tool_choice", "function_call", "store", "suffix")
