"""How one answer is written: its options, and what they make of the logits of a row.

The logits l of a row's next token are shaped in this order:

    penalties     l_v − frequency · count_v − presence · [count_v > 0], over the tokens of the answer so far
    temperature   l / T; 0 takes the most likely token, and nothing is drawn
    nucleus       the most likely tokens whose probabilities sum to ``top_p``; the others are never drawn

Log-probabilities that are told are of the logits as the model gives them, before all this.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.model.forward.lm_head import LmHead

AT_ONCE = 64  # states whose logits are held together


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one answer is written.

    max_new_tokens: after so many tokens it ends. stop: texts at which it ends; they are not told.
    temperature, top_p, presence_penalty, frequency_penalty: see above. seed: of what is drawn.
    logprobs: every token is told with its log-probability and those of so many likeliest ones; None: none is.
    echo: the tokens of the prompt are told so, too.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logprobs: int | None = None
    echo: bool = False


@dataclass(frozen=True)
class Weighed:
    """A token with its log-probability (nats; None for the first of a prompt), and the likeliest ones in its place.

    prompt: it is one of the prompt's.
    """

    id: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...]
    prompt: bool = False


def penalised(logits: Tensor, options: Sequence[Options], written: Sequence[Sequence[int]]) -> Tensor:
    """The logits with the penalties of each row's answer so far taken off.

    logits: (rows, vocabulary); what is returned where no row has a penalty. written: the tokens of each row's answer.
    """
    shaped = logits
    for row, (own, ids) in enumerate(zip(options, written, strict=True)):
        if not ids or not (own.presence_penalty or own.frequency_penalty):
            continue
        if shaped is logits:
            shaped = logits.float().clone()
        seen, counts = torch.tensor([*ids], device=logits.device).unique(return_counts=True)
        shaped[row, seen] -= own.frequency_penalty * counts + own.presence_penalty
    return shaped


def nucleus(logits: Tensor, temperature: Tensor, top_p: Sequence[float]) -> Tensor:
    """The logits with −∞ for the tokens outside of each row's nucleus, in which its most likely token always is.

    logits: (rows, vocabulary); what is returned where every ``top_p`` is 1. temperature: (rows,), above 0.
    top_p: of each row, in (0, 1].
    """
    rows = [row for row, share in enumerate(top_p) if share < 1]
    if not rows:
        return logits
    ordered, places = logits[rows].double().sort(dim=1, descending=True, stable=True)
    shares = ((ordered - ordered[:, :1]) / temperature[rows, None].double()).softmax(1)
    likelier = shares.cumsum(1) - shares
    outside = likelier >= torch.tensor([top_p[row] for row in rows], dtype=torch.float64, device=logits.device)[:, None]
    outside[:, 0] = False
    kept = logits.clone()
    kept[rows] = logits[rows].masked_fill(torch.zeros_like(outside).scatter(1, places, outside), -torch.inf)
    return kept


def weighed(logits: Tensor, ids: Sequence[int], count: int, *, prompt: bool = False) -> list[Weighed]:
    """Tokens with their log-probabilities. logits: (tokens, vocabulary). count: of likeliest ones to name."""
    logprobs = logits.float().log_softmax(1)
    own = logprobs.gather(1, torch.tensor([*ids], device=logits.device)[:, None]).flatten().tolist()
    values, places = logprobs.topk(min(count, logits.shape[1]), dim=1)
    likeliest = [tuple(zip(*pair, strict=True)) for pair in zip(places.tolist(), values.tolist(), strict=True)]
    return [Weighed(id_, logprob, others, prompt) for id_, logprob, others in zip(ids, own, likeliest, strict=True)]


def weighed_prompt(states: Tensor, head: LmHead, ids: Sequence[int], count: int) -> list[Weighed]:
    """A prompt's tokens with their log-probabilities. states: (tokens, hidden), each predicts the token behind it."""
    tokens = [Weighed(ids[0], None, (), prompt=True)]
    for start in range(0, len(ids) - 1, AT_ONCE):
        chunk = states[start : min(start + AT_ONCE, len(ids) - 1)]
        tokens += weighed(head(chunk), ids[start + 1 : start + 1 + len(chunk)], count, prompt=True)
    return tokens
