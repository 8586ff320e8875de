"""From the logits of a step to each row's next token, every row under its own options.

Of the logits l of a row, in this order:

    penalties     l_v − frequency · count_v − presence · [count_v > 0], over the tokens of the answer so far
    temperature   l / T; 0 takes the most likely token, and nothing is drawn
    nucleus       the most likely tokens whose probabilities sum to ``top_p``; the others are never drawn

Log-probabilities that are told are of the logits as the model gives them, before all this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import LongTensor, Tensor

from pipeline.model.decoding.sampling import greedy, sample

COLDEST = 1e-30  # a temperature below it would make logits infinite, and draws the same
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

    @property
    def penalised(self) -> bool:
        """Whether tokens of the answer change the logits."""
        return bool(self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True)
class Weighed:
    """A token with its log-probability (nats; None for the first of a prompt), and the likeliest ones in its place.

    prompt: it is one of the prompt's.
    """

    id: int
    logprob: float | None
    likeliest: tuple[tuple[int, float], ...]
    prompt: bool = False


class Writing(Protocol):
    """What a row has to say of itself: its options, its answer so far, and where its draws come from."""

    options: Options
    ids: list[int]
    generator: torch.Generator


def choose(logits: Tensor, rows: Sequence[Writing]) -> LongTensor:
    """The next token of every row. logits: (rows, vocabulary), float32. Each row that draws takes one number."""
    shaped = _penalised(logits, rows)
    chosen, _ = greedy(shaped)
    drawn = [number for number, row in enumerate(rows) if row.options.temperature > 0]
    if drawn:
        uniform = torch.cat([torch.rand(1, generator=rows[number].generator) for number in drawn]).to(logits.device)
        temperature = torch.tensor([rows[number].options.temperature for number in drawn], device=logits.device)
        scaled = shaped[drawn] / temperature.clamp(min=COLDEST)[:, None]
        top_p = torch.tensor([rows[number].options.top_p for number in drawn], device=logits.device)
        chosen[drawn] = sample(nucleus(scaled, top_p), uniform, 1.0)[0]
    return chosen


def _penalised(logits: Tensor, rows: Sequence[Writing]) -> Tensor:
    penalised = [number for number, row in enumerate(rows) if row.options.penalised and row.ids]
    if not penalised:
        return logits
    shaped = logits.clone()
    for number in penalised:
        options = rows[number].options
        ids, counts = torch.tensor(rows[number].ids, device=logits.device).unique(return_counts=True)
        shaped[number, ids] -= options.frequency_penalty * counts + options.presence_penalty
    return shaped


def nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """The logits with −∞ for what is outside of the nucleus; rows with ``top_p`` 1 are as they were.

    logits: (rows, vocabulary). top_p: (rows,) in (0, 1]. The likeliest token is always inside.
    """
    rows = (top_p < 1).nonzero().flatten()
    if not len(rows):
        return logits
    ordered, places = logits[rows].sort(dim=1, descending=True, stable=True)
    shares = ordered.softmax(1)
    before = shares.double().cumsum(1) - shares  # of all that are likelier
    outside = before >= top_p[rows, None]
    outside[:, 0] = False
    kept = logits.clone()
    kept[rows] = logits[rows].masked_fill(torch.zeros_like(outside).scatter(1, places, outside), -torch.inf)
    return kept


def weighed(logits: Tensor, ids: Sequence[int], count: int, *, prompt: bool = False) -> list[Weighed]:
    """Tokens with their log-probabilities. logits: (tokens, vocabulary), float32. count: of likeliest ones to name."""
    logprobs = logits.log_softmax(1)
    own = logprobs.gather(1, torch.tensor([*ids], device=logits.device)[:, None]).flatten().tolist()
    values, places = logprobs.topk(min(count, logits.shape[1]), dim=1)
    likeliest = [tuple(zip(*pair, strict=True)) for pair in zip(places.tolist(), values.tolist(), strict=True)]
    return [Weighed(id_, logprob, others, prompt) for id_, logprob, others in zip(ids, own, likeliest, strict=True)]


def weighed_prompt(states: Tensor, head: torch.nn.Module, ids: Sequence[int], count: int) -> list[Weighed]:
    """A prompt's tokens with their log-probabilities. states: (tokens, hidden), each predicts the token behind it."""
    tokens = [Weighed(ids[0], None, (), prompt=True)]
    for start in range(0, len(ids) - 1, AT_ONCE):
        chunk = states[start : min(start + AT_ONCE, len(ids) - 1)]
        logits = head(chunk).float()
        tokens += weighed(logits, ids[start + 1 : start + 1 + len(chunk)], count, prompt=True)
    return tokens
