"""An answer as OpenAI's JSON, whole or event by event: of a chat, and of a text that was continued."""

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipeline.serving.choosing import Weighed
from pipeline.serving.jobs import Answered, Decision

DONE = "data: [DONE]\n\n"
SPACE = "▁"  # how some tokenizers write the space that a token begins with, and decode it to nothing


@dataclass
class Heard:
    """One answer, as far as the engine has told it.

    prompt: the text that it continues, where that is wanted back. nothing_new: the prompt alone is wanted.
    """

    prompt: str = ""
    nothing_new: bool = False
    decision: Decision | None = None
    tokens: list[Weighed] = field(default_factory=list)
    answered: Answered | None = None


class Reply(ABC):
    """The form of an API's answers. several: answers to each prompt."""

    kind, prefix, chunk = "", "", ""  # what the whole is called, what its id begins with, what an event is called

    def __init__(self, model: str, tokenizer: PreTrainedTokenizerBase, *, several: int) -> None:
        self.tokenizer, self.several = tokenizer, several
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    @abstractmethod
    def whole(self, heard: Sequence[Heard]) -> dict[str, Any]:
        """All answers at once."""

    @abstractmethod
    def begin(self, index: int, heard: Heard) -> dict[str, Any]:
        """The first event of an answer, which says what the first pass decided."""

    @abstractmethod
    def piece(self, index: int, text: str, tokens: Sequence[Weighed]) -> dict[str, Any]:
        """An event with some text, and the tokens since the last one."""

    @abstractmethod
    def end(self, index: int, answered: Answered, tokens: Sequence[Weighed]) -> dict[str, Any]:
        """The last event of an answer."""

    def usage(self, heard: Sequence[Heard]) -> dict[str, Any]:
        """The event that says what all of it cost."""
        return {**self.head, "object": self.chunk, "choices": [], "usage": _usage(heard, self.several)}

    def _event(self, choice: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {**self.head, "object": self.chunk, "choices": [choice], **more}

    def _whole(self, choices: Sequence[dict[str, Any]], heard: Sequence[Heard]) -> dict[str, Any]:
        more: dict[str, Any] = {"choices": choices, "usage": _usage(heard, self.several)}
        if len(heard) == 1:
            more |= _decision(heard[0])
        else:
            more["choices"] = [{**choice, **_decision(of)} for choice, of in zip(choices, heard, strict=True)]
        return {**self.head, "object": self.kind, **more}

    def _text(self, token: int) -> str:
        """One token's text; half a character is told as U+FFFD."""
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        written = self.tokenizer.convert_ids_to_tokens(token)
        spaced = isinstance(written, str) and written.startswith(SPACE) and not text.startswith(" ")
        return f" {text}" if spaced else text


class ChatReply(Reply):
    """``/v1/chat/completions``."""

    kind, prefix, chunk = "chat.completion", "chatcmpl", "chat.completion.chunk"

    def whole(self, heard: Sequence[Heard]) -> dict[str, Any]:
        choices = []
        for index, answer in enumerate(heard):
            assert answer.answered
            message = {"role": "assistant", "content": answer.answered.text, "refusal": None}
            choices.append(self._choice(index, answer.tokens, answer.answered.ended, message=message))
        return self._whole(choices, heard)

    def begin(self, index: int, heard: Heard) -> dict[str, Any]:
        return self._event(self._choice(index, delta={"role": "assistant", "content": ""}), **_decision(heard))

    def piece(self, index: int, text: str, tokens: Sequence[Weighed]) -> dict[str, Any]:
        return self._event(self._choice(index, tokens, delta={"content": text}))

    def end(self, index: int, answered: Answered, tokens: Sequence[Weighed]) -> dict[str, Any]:
        return self._event(self._choice(index, tokens, answered.ended, delta={}))

    def _choice(
        self, index: int, tokens: Sequence[Weighed] = (), reason: str | None = None, **content: Any
    ) -> dict[str, Any]:
        logprobs = {"content": [self._weighed(token) for token in tokens], "refusal": None} if tokens else None
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def _weighed(self, token: Weighed) -> dict[str, Any]:
        others = [self._told(id_, logprob) for id_, logprob in token.likeliest]
        return {**self._told(token.id, token.logprob), "top_logprobs": others}

    def _told(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}


class TextReply(Reply):
    """``/v1/completions``."""

    kind, prefix, chunk = "text_completion", "cmpl", "text_completion"

    def __init__(self, model: str, tokenizer: PreTrainedTokenizerBase, *, several: int) -> None:
        super().__init__(model, tokenizer, several=several)
        self._offsets: dict[int, int] = {}  # of each answer: characters of the tokens that were told

    def whole(self, heard: Sequence[Heard]) -> dict[str, Any]:
        choices = []
        for index, answer in enumerate(heard):
            assert answer.answered
            text = answer.prompt + answer.answered.text
            choices.append(self._choice(index, text, answer.tokens, answer.answered.ended))
        return self._whole(choices, heard)

    def begin(self, index: int, heard: Heard) -> dict[str, Any]:
        return self._event(self._choice(index, heard.prompt), **_decision(heard))

    def piece(self, index: int, text: str, tokens: Sequence[Weighed]) -> dict[str, Any]:
        return self._event(self._choice(index, text, tokens))

    def end(self, index: int, answered: Answered, tokens: Sequence[Weighed]) -> dict[str, Any]:
        return self._event(self._choice(index, "", tokens, answered.ended))

    def _choice(
        self, index: int, text: str, tokens: Sequence[Weighed] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = self._logprobs(index, tokens) if tokens else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, tokens: Sequence[Weighed]) -> dict[str, Any]:
        texts, offsets, others = [], [], []
        place = self._offsets.get(index, 0)
        for token in tokens:
            texts.append(self._text(token.id))
            offsets.append(place)
            place += len(texts[-1])
            others.append(self._likeliest(token))
        self._offsets[index] = place
        logprobs = [token.logprob for token in tokens]
        return {"tokens": texts, "token_logprobs": logprobs, "top_logprobs": others, "text_offset": offsets}

    def _likeliest(self, token: Weighed) -> dict[str, float] | None:
        """Text → log-probability, the token's own included; of tokens with the same text the likelier one."""
        if token.logprob is None:
            return None
        texts: dict[str, float] = {}
        for id_, logprob in (*token.likeliest, (token.id, token.logprob)):
            text = self._text(id_)
            texts[text] = max(logprob, texts.get(text, logprob))
        return texts


def line(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _usage(heard: Sequence[Heard], several: int) -> dict[str, int]:
    """Tokens read, each prompt once however many answers it has, and written."""
    read = sum(answer.answered.prompt_tokens for answer in heard[::several] if answer.answered)
    written = sum(answer.answered.tokens for answer in heard if answer.answered)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _decision(heard: Heard) -> dict[str, Any]:
    decision = heard.decision
    assert decision
    return {
        "selfadapt": {
            "chosen": decision.chosen,
            "form": decision.form,
            "weights": decision.weights,
            "first_pass_tokens": decision.tokens,
            "first_pass_seconds": decision.seconds,
        }
    }
