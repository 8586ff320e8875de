"""A model folder, looked at before a library builds what it says: nonsense there asks for years or terabytes.

The weights are what is there; the configuration may say anything. So it must not have more layers than the weights
have tensors. A chat template is a program: it is tried once, for a while, before anything relies on it.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import safe_open

from pipeline.core.errors import UserError
from pipeline.core.reading import foreign

TEMPLATE_SECONDS = 30.0  # a chat template takes milliseconds; the machine may be busy
LONGEST = 1 << 20  # characters that it may make of two words


def check_layers(folder: Path, remedy: str) -> bool:
    """UserError where a folder's configuration cannot be that of its weights; returns whether its model has eyes."""
    from transformers import AutoConfig  # takes seconds, and most who import core need none of it

    with foreign(folder / "config.json", "a configuration that transformers reads", remedy):
        config: Any = AutoConfig.from_pretrained(folder)
        text = config.get_text_config()
        layers = int(text.num_hidden_layers)
    with foreign(folder, "weights as safetensors", remedy):
        tensors = 0
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                tensors += len(file.keys())
    if layers < 1 or (tensors and layers > tensors):  # without any weights, transformers builds nothing
        raise UserError(
            f"expected a configuration of its weights in {folder}, got {layers} layers for {tensors} tensors; {remedy}"
        )
    return hasattr(config, "vision_config")


def check_template(tokenizer: Any, folder: Path, remedy: str, *, in_parts: bool = False) -> None:
    """UserError where a chat template, if there is one, does not make a prompt of one question.

    in_parts: it takes a message's content as a list of parts, as chats with pictures have it.
    """
    if not tokenizer.chat_template:
        return
    with foreign(folder, "a chat template that takes a question", remedy), _in_time(TEMPLATE_SECONDS):
        asked: Any = [{"type": "text", "text": "Who?"}] if in_parts else "Who?"
        chat = [{"role": "user", "content": asked}]
        try:
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except MemoryError:
            raise ValueError("it asks for more memory than there is") from None
        if not text.strip() or len(text) > LONGEST:
            raise ValueError(f"a prompt of {len(text)} characters" if text else "an empty prompt")


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Raise TimeoutError at the first line of Python that is run later than that: a template is compiled to Python."""
    ending, before = time.monotonic() + seconds, sys.gettrace()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > ending:
            raise TimeoutError(f"it takes more than {seconds:g} s")
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
