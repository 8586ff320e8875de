"""The decode loop: many prompts, ragged lengths, one adapter per row if need be.

What makes it fast, on a CPU first:
1. Prompts are sorted by length and batched by tokens held in the key-value cache, not by rows.
2. A prompt's samples share its prefill.
3. The cache is allocated once per batch. On a CPU it is float32 whatever the model's dtype: attention with one query
   is bound by memory and by conversions, and float32 is the faster of the two there.
4. Attention with one query is two batched matrix products over the grouped heads; keys are never repeated.
5. Finished rows leave the batch, and their cache with them.
6. Sampling inverts the distribution function, first over blocks of the vocabulary, then within one: one pass of exp
   over the logits instead of a sorted or renormalised copy. The sampled token's log-probability falls out of it.

The randomness of a sample is fixed by its number and step (one uniform each, drawn beforehand), so it does not depend
on how rows were batched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pipeline.core.adapters import Attachment
from pipeline.core.config import Section
from pipeline.core.models import Base, decoder

ATTENTION = "selfadapt"
BLOCK = 256  # vocabulary entries per block of the sampler
KEEP = 0.75  # finished rows leave when the share of unfinished ones falls below this: moving the cache costs, too


class Decoding(Section, at="tasks.{task}.decoding"):
    """How long an answer to a task may be, in tokens."""

    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """Generated ids (the end-of-sequence token included), their log-probabilities (nats), whether it ended itself."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


class _Cache:
    """Keys and values of one batch, (rows, key-value heads, columns, head size) a layer; rows are right-aligned."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.columns, self.dtype, self.device = rows, columns, dtype, device
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.target: tuple[slice, slice, int] | None = None  # rows, columns, samples: set for a prefill
        self.used = 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object) -> tuple[Tensor, Tensor]:
        if layer == len(self.keys):
            shape = (self.rows, keys.shape[1], self.columns, keys.shape[3])
            self.keys.append(torch.zeros(shape, dtype=self.dtype, device=self.device))
            self.values.append(torch.zeros(shape, dtype=self.dtype, device=self.device))
        if self.target is not None:
            rows, columns, samples = self.target
            self.keys[layer][rows, :, columns] = keys.to(self.dtype).repeat_interleave(samples, 0)
            self.values[layer][rows, :, columns] = values.to(self.dtype).repeat_interleave(samples, 0)
            return keys, values  # a prefill begins the sequence: it looks at itself alone
        end = self.used + 1
        self.keys[layer][:, :, self.used] = keys[:, :, 0]
        self.values[layer][:, :, self.used] = values[:, :, 0]
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def get_seq_length(self, layer: int = 0) -> int:
        return self.used

    def keep(self, rows: LongTensor) -> None:
        """Drop all other rows; their memory is given back."""
        for layer in range(len(self.keys)):
            for tensors in (self.keys, self.values):
                old = tensors[layer]
                new = old.new_zeros((len(rows), *old.shape[1:]))
                new[:, :, : self.used] = old[:, :, : self.used].index_select(0, rows)
                tensors[layer] = new
        self.rows = len(rows)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """One query per row against the cache, over grouped heads; anything longer goes to PyTorch's own attention."""
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    rows, heads, _, size = query.shape
    groups = key.shape[1]
    grouped = query.reshape(rows, groups, heads // groups, size).to(key.dtype)
    scores = torch.matmul(grouped * (scaling or size**-0.5), key.transpose(-1, -2))
    weights = scores.add_(attention_mask).softmax(-1)
    mixed = torch.matmul(weights, value).to(query.dtype)
    return mixed.reshape(rows, 1, heads, size), None


AttentionInterface.register(ATTENTION, _attention)


@contextmanager
def _decoding_attention(model: nn.Module) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def sample(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[LongTensor, Tensor]:
    """Draw one token per row by inverting the distribution function at ``uniform``.

    logits: (rows, vocab). uniform: (rows,) in [0, 1). Returns ids and their log-probabilities (nats) at this
    temperature.
    """
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    rows, vocab = scaled.shape
    top = scaled.amax(1, keepdim=True)
    weights = (scaled - top).exp_()
    if vocab % BLOCK:
        weights = nn.functional.pad(weights, (0, BLOCK - vocab % BLOCK))
    blocks = weights.view(rows, -1, BLOCK)
    # float64: the sum of 49 152 float32 terms is off by more than the probability of a rare token
    cumulated = blocks.sum(-1).double().cumsum(-1)
    total = cumulated[:, -1:]
    point = uniform[:, None].double() * total
    block = torch.searchsorted(cumulated, point, right=True).clamp_(max=cumulated.shape[1] - 1)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).double().cumsum(-1)
    rest = point - torch.where(block > 0, cumulated.gather(1, (block - 1).clamp_(min=0)), 0.0)
    place = torch.searchsorted(inside, rest, right=True)
    # Rounding may leave the point behind the block's last token: step back to its last token of any weight.
    last = (
        BLOCK
        - 1
        - (blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).squeeze(1).flip(1) > 0)
        .int()
        .argmax(1, keepdim=True)
    )
    ids = block * BLOCK + torch.minimum(place, last)
    chosen = scaled.gather(1, ids) - top - total.log().float()
    return ids.squeeze(1), chosen.squeeze(1)


def greedy(logits: Tensor) -> tuple[LongTensor, Tensor]:
    """The most likely token of each row and its log-probability (nats)."""
    scaled = logits.float()
    top, ids = scaled.max(1)
    return ids, top - scaled.logsumexp(1)


@torch.no_grad()
def generate(
    base: Base,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    cache_tokens: int,
    attachment: Attachment | None = None,
    rows: Sequence[int] | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    watch: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """Answer every prompt ``samples`` times; returns the answers in the order of the prompts.

    temperature: 0 takes the most likely token (then ``samples`` is 1), above it samples by ``generator``.
    attachment, rows: an attached adapter and the row of it that each prompt uses (default: its own number).
    batch_tokens, cache_tokens: budgets, with padding, of a prefill pass and of the cache of one batch.
    watch: called with the number of prompts that were just finished.
    """
    if temperature > 0 and generator is None:
        raise ValueError("expected a generator to sample with")
    if temperature == 0 and samples != 1:
        raise ValueError("expected one sample at temperature 0: all would be the same")
    rows = range(len(prompts)) if rows is None else rows
    uniform = None
    if temperature > 0:
        uniform = torch.rand(len(prompts), samples, max_new_tokens, generator=generator)
    found: list[list[Answer]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    with _decoding_attention(base.model):
        while order:
            columns = len(prompts[order[0]]) + max_new_tokens
            size = max(1, cache_tokens // (columns * samples))
            batch, order = order[:size], order[size:]
            answers = _decode(
                base,
                [prompts[index] for index in batch],
                rows=torch.tensor([rows[index] for index in batch]),
                attachment=attachment or Attachment(),
                uniform=None if uniform is None else uniform[batch],
                max_new_tokens=max_new_tokens,
                batch_tokens=batch_tokens,
                samples=samples,
                temperature=temperature,
            )
            for number, index in enumerate(batch):
                found[index] = answers[number * samples : (number + 1) * samples]
            if watch:
                watch(len(batch))
    return found


def _prefill(
    base: Base,
    prompts: Sequence[Sequence[int]],
    cache: _Cache,
    *,
    rows: LongTensor,
    attachment: Attachment,
    batch_tokens: int,
    samples: int,
) -> Tensor:
    """Fill the cache with the prompts (longest first), right-aligned; returns the last hidden states (rows, hidden)."""
    longest = len(prompts[0])
    device = base.device
    last = []
    start = 0
    while start < len(prompts):
        length = len(prompts[start])
        end = min(len(prompts), start + max(1, batch_tokens // length))
        part = prompts[start:end]
        ids = torch.tensor([[0] * (length - len(prompt)) + list(prompt) for prompt in part], device=device)
        real = torch.tensor([[False] * (length - len(p)) + [True] * len(p) for p in part], device=device)
        positions = (real.cumsum(1) - 1).clamp_(min=0)
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        # Padding sees padding: a row of the softmax without any key would be undefined.
        mask = (real[:, None, :] == real[:, :, None]) & causal
        cache.target = (slice(start * samples, end * samples), slice(longest - length, longest), samples)
        attachment.begin(rows[start:end].to(device), real)
        hidden = decoder(base.model)(
            input_ids=ids, position_ids=positions, attention_mask=mask[:, None], past_key_values=cache, use_cache=True
        ).last_hidden_state
        last.append(hidden[:, -1])
        start = end
    cache.target = None
    cache.used = longest
    return torch.cat(last).repeat_interleave(samples, 0)


def _decode(
    base: Base,
    prompts: Sequence[Sequence[int]],
    *,
    rows: LongTensor,
    attachment: Attachment,
    uniform: Tensor | None,
    max_new_tokens: int,
    batch_tokens: int,
    samples: int,
    temperature: float,
) -> list[Answer]:
    """One batch, its longest prompt first. uniform: (prompts, samples, max_new_tokens)."""
    model, device = base.model, base.device
    total, longest = len(prompts) * samples, len(prompts[0])
    dtype = torch.float32 if device.type == "cpu" else model.dtype
    cache = _Cache(total, longest + max_new_tokens, dtype, device)
    hidden = _prefill(
        base, prompts, cache, rows=rows, attachment=attachment, batch_tokens=batch_tokens, samples=samples
    )
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device).repeat_interleave(samples)
    row_of = rows.to(device).repeat_interleave(samples)
    active = torch.arange(total, device=device)
    mask = torch.zeros(total, longest + max_new_tokens, dtype=dtype, device=device)
    mask[:, :longest].masked_fill_(torch.arange(longest, device=device) < (longest - lengths)[:, None], -torch.inf)
    draws = None if uniform is None else uniform.flatten(0, 1).to(device)
    ids_out = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
    logprobs_out = torch.zeros(total, max_new_tokens, device=device)
    counts = torch.zeros(total, dtype=torch.long, device=device)
    ended = torch.zeros(total, dtype=torch.bool, device=device)
    ends = torch.tensor(sorted(base.end_ids), device=device)
    alive = torch.ones(total, dtype=torch.bool, device=device)  # of the active rows: not finished yet

    for step in range(max_new_tokens):
        logits = model.get_output_embeddings()(hidden)
        if draws is None:
            chosen, logprob = greedy(logits)
        else:
            chosen, logprob = sample(logits, draws[active, step], temperature)
        kept = active[alive]
        ids_out[kept, step] = chosen[alive]
        logprobs_out[kept, step] = logprob[alive]
        counts[kept] += 1
        stopped = torch.isin(chosen, ends) & alive
        ended[active[stopped]] = True
        alive &= ~stopped
        remaining = int(alive.sum())
        if remaining == 0 or step == max_new_tokens - 1:
            break
        if remaining < KEEP * len(active):
            places = alive.nonzero().squeeze(1)
            cache.keep(places)
            active, chosen, lengths, mask = active[places], chosen[places], lengths[places], mask[places]
            row_of, alive = row_of[places], alive[places]
        attachment.begin(row_of, None)
        hidden = decoder(model)(
            input_ids=chosen[:, None],
            position_ids=(lengths + step)[:, None],
            attention_mask=mask[:, None, None, : cache.used + 1],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        cache.used += 1

    answers = []
    for ids, logprobs, count, finished in zip(
        ids_out.tolist(), logprobs_out.tolist(), counts.tolist(), ended.tolist(), strict=True
    ):
        answers.append(Answer(tuple(ids[:count]), tuple(logprobs[:count]), finished))
    return answers
