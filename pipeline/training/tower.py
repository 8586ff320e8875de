"""A tower and its projector learn to read, before any language model looks.

The tower tells characters apart, column by column; the string on the sign is the target of a CTC loss (Graves et al.,
ICML 2006). The projector turns the columns that are characters into the language model's own embeddings of them: its
logits are scaled cosines to all of these, and its target is the character that the tower has read. So what the tower
hands on is written in embeddings that the language model knows already, and no pass of it is needed. What is nothing
becomes a new line, what is a space between words a space. Letters' case is not told apart.

Shapes: pixels (batch, 3, 32, 128), columns (batch, 16, hidden).
"""

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.forward.adapters import Attachment
from pipeline.training.loop import Optimisation, Row, Training, optimise, order_of, seeded_shuffles

NOTHING, SPACE = "Ċ", "Ġ"  # tokens of byte-level vocabularies: a new line, and a space
ALPHABET = string.digits + string.ascii_lowercase + ".$+"


class Reading(Optimisation):
    """How a tower is trained. pictures: signs that are drawn, once, and shown again in every epoch."""

    pictures: int


@dataclass(frozen=True)
class Signs:
    """pictures: (signs, 32, 128, 3) of bytes. texts: what stands on them."""

    pictures: np.ndarray
    texts: Sequence[str]

    def pixels(self, rows: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.pictures[list(rows)]).permute(0, 3, 1, 2).float()


def characters(embeddings: Tensor, vocabulary: Mapping[str, int]) -> Tensor:
    """The embeddings (characters, hidden) of nothing, the space and the alphabet. embeddings: of all tokens."""
    return embeddings[[vocabulary[token] for token in (NOTHING, SPACE, *ALPHABET)]].float()


def labels(text: str) -> list[int]:
    """The numbers of a string's characters; 0 is nothing."""
    return [1 if character == " " else 2 + ALPHABET.index(character) for character in text.lower()]


def spelled(characters: Iterable[int]) -> str:
    """The string that some characters are, by their numbers."""
    return "".join(" " if one == 1 else ALPHABET[one - 2] for one in characters if one)


class Reader(nn.Module):
    """What is trained: a tower, its projector, and how sharply cosines are told apart.

    characters: see ``characters``. autocast: whether products are in bfloat16.
    """

    def __init__(self, tower: nn.Module, projector: nn.Module, characters: Tensor, *, autocast: bool) -> None:
        super().__init__()
        self.tower, self.projector, self.autocast = tower, projector, autocast
        self.sharpness, self.bias = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.zeros(len(characters)))
        self.directions = functional.normalize(characters, dim=1)
        self.radius = float(characters.norm(dim=1).mean())

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the columns may be, as logits; what the projector makes of those that were read; which these are."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            columns = self.tower.columns(pixels)
            logits = self.tower.head(columns)
            read, characters = self.tower.read(columns.detach(), logits.argmax(-1))
            return logits.float(), self.projector(read).float(), characters

    def named(self, projected: Tensor) -> Tensor:
        """What projected columns may be, as logits (batch, 16, characters)."""
        return functional.normalize(projected, dim=-1) @ self.directions.T * self.sharpness.exp() + self.bias

    # ---- a learner of the loop ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        self.load_state_dict(dict(state))

    def retract(self) -> None:
        """Every state is one."""

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        yield Attachment()


class _Ctc:
    """The loss of the strings, as the loop wants it."""

    facts: Mapping[str, Any] = {"objective": "ctc"}

    def __init__(self, reader: Reader, train: Signs, validation: Signs, training: Training[Reading]) -> None:
        self.reader, self.train, self.validation = reader, train, validation
        self.batch, self.seed = training.settings.batch, training.seed
        self.shuffle = seeded_shuffles(len(train.texts), training.seed)

    def gradient(self, step: int) -> dict[str, float]:
        rows = order_of(step, self.batch, len(self.train.texts), self.shuffle)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        self.reader.train()
        logits, projected, characters = self.reader(varied(self.train.pixels(rows), generator))
        targets = [torch.tensor(labels(self.train.texts[row])) for row in rows]
        loss = functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.cat(targets),
            torch.full((len(rows),), logits.shape[1]),
            torch.tensor([len(target) for target in targets]),
            zero_infinity=True,
        )
        named = functional.cross_entropy(self.reader.named(projected).flatten(0, 1), characters.flatten())
        far = (projected.norm(dim=-1) / self.reader.radius - 1).square().mean()
        (loss + named + far).backward()
        return {"loss": float(loss.detach())}

    def row(self, measured: Mapping[str, float], norm: float) -> Row:
        return {"train": measured["loss"]}

    def validate(self) -> Row:
        """``validation``: the share of strings that are read without a fault."""
        said = strings(self.reader, self.validation)
        right = [text == wanted.lower() for text, wanted in zip(said, self.validation.texts, strict=True)]
        return {"validation": sum(right) / len(right)}

    def merit(self, validated: Row) -> tuple[float, ...]:
        return (validated["validation"],)


@torch.no_grad()
def strings(reader: Reader, signs: Signs, batch: int = 64) -> list[str]:
    """What a reader reads on some signs."""
    reader.eval()
    found: list[str] = []
    for start in range(0, len(signs.texts), batch):
        rows = range(start, min(start + batch, len(signs.texts)))
        found += [spelled(row) for row in reader(signs.pixels(rows))[2].tolist()]
    return found


def varied(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures moved by some pixels and with some noise, so that no two epochs show the same."""
    across, down = (int(torch.randint(-most, most + 1, (), generator=generator)) for most in (4, 2))
    noise = torch.empty_like(pixels[:, :1]).normal_(0, 6, generator=generator)
    return torch.roll(pixels, (down, across), (2, 3)) + noise


def train(reader: Reader, train: Signs, validation: Signs, training: Training[Reading]) -> list[Row]:
    """Train a reader in place, leave it at its best state, and return the curve, a row a step."""
    run = optimise(reader, _Ctc(reader, train, validation, training), training=training, name="ctc")
    reader.eval()
    return run.rows()
