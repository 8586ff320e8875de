"""One pass of the model over tokens of a cache's rows, and the decode step: one more token of each row.

Two schedulers stand on it: the batch job (``answer``), which writes the answers to prompts that are all known, and the
server (``pipeline.serving.engine``), whose rows come and go.
"""

from torch import LongTensor, Tensor

from pipeline.model.decoding.cache import Cache, Place
from pipeline.model.decoding.sampling import greedy, sample
from pipeline.model.forward.attention import standing
from pipeline.model.forward.base import Adapted, Base, decoder


def forward(base: Base, cache: Cache, place: Place, *, ids: LongTensor, positions: LongTensor, mask: Tensor) -> Tensor:
    """The final hidden states of a pass, (rows, tokens, hidden).

    ids, positions: (rows, tokens). mask: True where a token may look, or a number to add, (rows, 1, tokens, columns).
    place: where the tokens go in the cache, and what they look at.
    """
    with cache.placing(place, positions) as keys, standing(positions, keys):
        return decoder(base.model)(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).last_hidden_state


def advance(
    adapted: Adapted,
    cache: Cache,
    place: Place,
    *,
    ids: LongTensor,
    positions: LongTensor,
    rows: LongTensor,
    mask: Tensor,
) -> Tensor:
    """Compute one more token of each row; returns the states that predict the next ones, (rows, hidden).

    ids, positions, rows: (rows,) the token, its position and the row of the adapter. mask: added, (rows, columns).
    """
    adapted.attachment.begin(rows, None)
    hidden = forward(
        adapted.base, cache, place, ids=ids[:, None], positions=positions[:, None], mask=mask[:, None, None]
    )
    return hidden[:, -1]


def choose(
    logits: Tensor, rows: LongTensor, *, uniform: Tensor | None = None, temperature: float | Tensor = 1.0
) -> tuple[LongTensor, Tensor]:
    """The next token of each sample, and its log-probability (nats).

    logits: (rows, vocab). rows: (samples,) the row that each sample stands in.
    uniform: (samples,) numbers in [0, 1) to draw by (default: the most likely token is taken).
    temperature: above 0, one for all or (samples,).
    """
    if uniform is None:
        ids, logprobs = greedy(logits)
        return ids[rows], logprobs[rows]
    return sample(logits[rows], uniform, temperature)
