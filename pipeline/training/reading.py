"""A frozen model read by a classification head, in the form that next-token training and packing know.

The label stands for the one token of the answer, and the head for the language-model head. Next-token training then
trains the head by cross-entropy, with the same loop and the same use of memory.

The head reads one token's state:
- ``last``: the last of the prompt, in a decoder.
- ``first``: the first, in an encoder of RoBERTa's kind. Every token sees the whole prompt, and the label is no token of
  the input. The lines of a prompt are the texts of a pair.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.core.types import Example
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.attention import standing
from pipeline.model.forward.base import Base, decoder
from pipeline.training.layout import Group
from pipeline.training.packing import answer_hidden, packed_batches
from pipeline.training.skills import Skills, read_skills


class _Encoder(nn.Module):
    """An encoder that can be called as a decoder is, with whole prompts (batch, seq): none shares a prefix."""

    def __init__(self, body: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.body, self.pad_id = body, pad_id

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, past_key_values: None, use_cache: bool
    ) -> SimpleNamespace:
        prompt = attention_mask[:, 0, :, 0]  # what sees the first token; the label behind it is never read
        last = prompt.sum(dim=1) - 1
        ids = input_ids.masked_fill(~prompt, self.pad_id)
        with standing(ids, None):  # an encoder's windows reach to both sides, and it hides what is outside itself
            states = self.body(input_ids=ids, attention_mask=prompt.long()).last_hidden_state
        # The label is predicted from where the prompt ends, so the first token's state is put there.
        rows = torch.arange(len(states), device=states.device)
        return SimpleNamespace(last_hidden_state=states.index_put((rows, last), states[:, 0]))


class _Classified(nn.Module):
    """The frozen model with a classification head in place of its own head."""

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
            raise UserError(f"expected one of the labels {', '.join(self.labels)}, got '{text}'; correct it") from None


def reader(base: Base, head: nn.Module, labels: Sequence[str], read: str) -> Reader:
    """``base`` as ``head`` reads it.

    labels: what the head's logits are of, in order. read: ``last`` or ``first``, see the module.
    """
    if read not in ("last", "first"):
        raise UserError(f"expected a head to read the 'last' token or the 'first', got '{read}'; correct params.yaml")
    pad_id = base.tokenizer.pad_token_id
    model = _Classified(base.model, head, read, 0 if pad_id is None else pad_id)
    return Reader(model, base.tokenizer, base.end_ids, tuple(labels), read)


def labelled(examples: Sequence[Example], label: str, subset: str) -> list[Example]:
    """The examples of a subset, each with its label as its target.

    label: the key of the label, a text, in an example's meta. subset: ``all`` takes every example.
    """
    chosen = [example for example in examples if subset in ("all", example.meta.get("subset"))]
    answered = [replace(example, target=str(example.meta[label])) for example in chosen if label in example.meta]
    if not answered or len(answered) < len(chosen):
        raise UserError(
            f"expected examples of the subset '{subset}' with '{label}' in their meta, got {len(answered)} of "
            f"{len(examples)}; correct the entry of 'heads' or prepare that subset"
        )
    return answered


def read_labelled(
    train: Iterable[Path], validation: Iterable[Path], validation_examples: int, *, label: str, subset: str
) -> Skills:
    """The labelled examples of some files: see ``labelled``. validation_examples: how many are used, from the start."""
    # A subset's examples can be counted only once it is known which they are.
    skills = read_skills(train, validation, None)
    held_out = labelled(skills.validation, label, subset)[:validation_examples]
    return Skills(labelled(skills.train, label, subset), held_out, skills.names)


def predict(reading: Reader, attachment: Attachment, examples: Sequence[Example], batch_tokens: int) -> list[str]:
    """The likeliest label of each example, with whatever adapter is attached."""
    groups = [Group(reading.prompt_ids(example.messages), [[0]], row) for row, example in enumerate(examples)]
    given = [""] * len(groups)
    with torch.no_grad():
        for batch, packed in packed_batches(groups, attachment, batch_tokens=batch_tokens, device=reading.device):
            hidden = answer_hidden(decoder(reading.model), packed, attachment)[packed.state]
            logits = reading.lm_head(hidden)
            for index, best in zip(batch, logits.argmax(dim=-1).tolist(), strict=True):
                given[index] = reading.labels[best]
    return given
