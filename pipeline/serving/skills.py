"""The form in which CS-ReFT is asked: that of the skill which its router sees in the bare question.

An adapter of several skills was trained behind another form for each. Its router reads one state of a layer low down in
the model, so what it sees in a question costs that question's tokens in those layers alone. The question is then read
behind the form of the likeliest skill, and there the router opens the gates anew.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.methods.common.edits import stack_of
from pipeline.methods.csreft import CsReft
from pipeline.model.forward.base import Base, decoder
from pipeline.serving.jobs import Decision, FirstPass
from pipeline.serving.rows import Way


class _Seen(Exception):
    """The router has seen what it reads."""


def _stop(*_: Any) -> None:
    raise _Seen


def seen(adapter: CsReft, model: nn.Module, prompts: Sequence[Sequence[int]], batch_tokens: int) -> Tensor:
    """How likely each skill is of prompts given as token ids: (prompts, k). batch_tokens: of one pass, at most."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    batch = max(1, batch_tokens // longest)
    last = adapter.router["layer"] if adapter.router["input"] == "last_token" else 0
    found = []
    with torch.no_grad(), adapter.attached(model, None) as gating:
        handle = stack_of(model, adapter.config().get("layer_names"))[last].register_forward_hook(_stop)
        try:
            for start in range(0, len(prompts), batch):
                chunk = prompts[start : start + batch]
                ids = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in chunk], device=device)
                mask = torch.arange(longest, device=device) < torch.tensor([[len(p)] for p in chunk], device=device)
                gating.begin(torch.arange(len(chunk), device=device), mask)
                try:
                    decoder(model)(input_ids=ids, attention_mask=mask, use_cache=False)
                except _Seen:
                    found.append(gating.probabilities)
        finally:
            handle.remove()
    return torch.cat(found)


def by_skill(adapter: CsReft, ways: Sequence[Way], batch_tokens: int) -> FirstPass:
    """A first pass that takes, for each chat, the way of the likeliest skill. ways: one for each skill."""
    skills = adapter.config()["skills"]

    def decide(base: Base, chats: Sequence[Sequence]) -> list[tuple[Way, Decision]]:
        started = time.monotonic()
        prompts = [base.prompt_ids(messages) for messages in chats]
        likely = seen(adapter, base.model, prompts, batch_tokens)
        seconds = time.monotonic() - started
        return [
            (
                ways[int(row.argmax())],
                Decision(ways[0].name, dict(zip(skills, row.tolist(), strict=True)), len(prompt), seconds),
            )
            for row, prompt in zip(likely, prompts, strict=True)
        ]

    return decide
