"""A frozen model read by a classification head, in the shape that next-token training and packing know.

A label is taken for the one token of the answer, and the head for the language-model head: training by next-token
prediction is then training the head by cross-entropy, with the same schedule, checkpoints and memory.

- ``last``: a decoder; the head reads the last prompt token's state.
- ``first``: an encoder, of RoBERTa's kind; the head reads the first token's state, every token sees all of the prompt,
  and the label is no token of the input. A prompt's lines are the texts of a pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import Base, decoder
from pipeline.training.packing import Group, answer_hidden, packed_batches


class _Encoder(nn.Module):
    """An encoder that is called as a decoder is, with prompts (batch, seq) of which nothing is shared."""

    def __init__(self, body: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.body, self.pad_id = body, pad_id

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, past_key_values: None, use_cache: bool
    ) -> SimpleNamespace:
        prompt = attention_mask[:, 0, :, 0]  # what sees the first token; the label behind it is never read
        last = prompt.sum(dim=1) - 1
        ids = input_ids.masked_fill(~prompt, self.pad_id)
        states = self.body(input_ids=ids, attention_mask=prompt.long()).last_hidden_state
        # A label is predicted from where the prompt ends: that is where the first token's state is put.
        every = torch.arange(len(states), device=states.device)
        return SimpleNamespace(last_hidden_state=states.index_put((every, last), states[:, 0]))


class _Classified(nn.Module):
    """The frozen model with the head in the language-model head's place."""

    def __init__(self, frozen: nn.Module, head: nn.Module, read: str, pad_id: int) -> None:
        super().__init__()
        self.frozen, self.head = frozen, head
        self._body = decoder(frozen) if read == "last" else _Encoder(decoder(frozen), pad_id)

    @property
    def device(self) -> torch.device:
        return next(self.frozen.parameters()).device

    def get_decoder(self) -> nn.Module:
        return self._body

    def get_output_embeddings(self) -> nn.Module:
        return self.head


@dataclass(frozen=True)
class Reader(Base):
    """A base model whose answers are labels."""

    labels: tuple[str, ...]
    read: str

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        if self.read == "last":
            return super().prompt_ids(messages)
        return list(self.tokenizer(*messages[-1]["content"].split("\n", 1))["input_ids"])

    def answer_ids(self, text: str) -> list[int]:
        try:
            return [self.labels.index(text)]
        except ValueError:
            raise UserError(f"expected one of the labels {', '.join(self.labels)}, got '{text}'") from None


def reader(base: Base, head: nn.Module, labels: Sequence[str], read: str) -> Reader:
    """``base`` read by ``head``, whose logits are of ``labels``. read: ``last`` or ``first``, else a UserError."""
    if read not in ("last", "first"):
        raise UserError(f"expected a head to read the 'last' token or the 'first', got '{read}'; correct params.yaml")
    pad_id = base.tokenizer.pad_token_id
    model = _Classified(base.model, head, read, 0 if pad_id is None else pad_id)
    return Reader(model, base.tokenizer, base.end_ids, tuple(labels), read)


def labelled(examples: Sequence[Example], label: str, subset: str) -> list[Example]:
    """The examples of a subset (``all``: every one) with the label, a text of their meta, as what is to be answered."""
    chosen = [one for one in examples if subset in ("all", one.meta.get("subset"))]
    found = [replace(one, target=str(one.meta[label])) for one in chosen if label in one.meta]
    if not found or len(found) < len(chosen):
        raise UserError(
            f"expected examples of the subset '{subset}' with '{label}' in their meta, got {len(found)} of "
            f"{len(examples)}; correct the entry of 'heads' or prepare that subset"
        )
    return found


def predict(reading: Reader, attachment: Attachment, examples: Sequence[Example], batch_tokens: int) -> list[str]:
    """The likeliest label of each example, with whatever adapter is attached."""
    groups = [Group(reading.prompt_ids(one.messages), [[0]], row) for row, one in enumerate(examples)]
    found = [""] * len(groups)
    with torch.no_grad():
        for batch, packed in packed_batches(groups, attachment, batch_tokens=batch_tokens, device=reading.device):
            hidden = answer_hidden(decoder(reading.model), packed, attachment)[packed.state]
            logits = reading.model.get_output_embeddings()(hidden)
            for index, best in zip(batch, logits.argmax(dim=-1).tolist(), strict=True):
                found[index] = reading.labels[best]
    return found
