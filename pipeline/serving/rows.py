"""Many adapters in one batch: each row is computed with its own.

- SVF experts and mixtures: one z per row (``methods.svf.row_scaled``); 1 for rows without.
- LoRA: one pair A, B per row and module, added to the module's output; 0 for rows without.
- Edits of hidden states (LoReFT, CS-ReFT) touch the prompt alone: they are attached while a prompt is read, and a
  generated token is computed as the base model's.

So whatever the rows of a decode step ask for, they share it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import BoolTensor, LongTensor, Tensor, nn

from pipeline.methods.lora import Lora
from pipeline.methods.svf import row_scaled
from pipeline.model.forward.adapters import Adapter, Attachment, Factors
from pipeline.serving.forms import ALONE, Form


@dataclass(frozen=True, eq=False)
class Way:
    """How an answer is computed. Nothing set: by the base model.

    z: module → (r,) scales of its singular values. lora: a low-rank sum. edits: of the prompt's hidden states.
    form: the turns that it was trained behind.
    """

    name: str
    z: Mapping[str, Tensor] = field(default_factory=dict)
    lora: Lora | None = None
    edits: Adapter | None = None
    form: Form = ALONE


class Resident(Factors):
    """Factors kept on the model's device and in its dtype, as attaching wants them: cast once, not at every change."""

    def __init__(self, factors: Factors, model: nn.Module) -> None:
        super().__init__(factors.path)
        self._model = model
        self._cast: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def __getitem__(self, module: str) -> tuple[Tensor, Tensor, Tensor]:
        if module not in self._cast:
            u, sigma, vt = super().__getitem__(module)
            weight = self._model.get_submodule(module).weight
            self._cast[module] = u.to(weight), sigma.to(weight.device), vt.to(weight)
        return self._cast[module]


class _Together(Attachment):
    """Tells several attachments, and holds the rows for the low-rank sums."""

    current: LongTensor

    def __init__(self, others: Sequence[Attachment] = ()) -> None:
        self._others = others

    def begin(self, rows: LongTensor, prompt_mask: BoolTensor | None) -> None:
        self.current = rows
        for other in self._others:
            other.begin(rows, prompt_mask)


def _stacked_z(ways: Sequence[Way]) -> dict[str, Tensor]:
    """module → (ways, r): of every module that one of them scales."""
    ranks = {module: len(vector) for way in ways for module, vector in way.z.items()}
    return {
        module: torch.stack([way.z.get(module, torch.ones(rank)) for way in ways]) for module, rank in ranks.items()
    }


def _stacked_lora(ways: Sequence[Way], module: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A (ways, r, in) and (α/r) B (ways, out, r), float32, of the largest rank; zeros where a way has none."""
    pairs = [way.lora.pairs.get(module) if way.lora else None for way in ways]
    rank = max(len(pair[0]) for pair in pairs if pair)
    down = torch.zeros(len(ways), rank, weight.shape[1], device=weight.device)
    up = torch.zeros(len(ways), weight.shape[0], rank, device=weight.device)
    for index, (way, pair) in enumerate(zip(ways, pairs, strict=True)):
        if way.lora and pair:
            a, b = (parameter.detach().to(weight.device) for parameter in pair)
            config = way.lora.config()
            down[index, : len(a)] = a
            up[index, :, : len(a)] = config["lora_alpha"] / config["r"] * b
    return down, up


def _add_low_rank(
    down: Tensor, up: Tensor, rows: _Together, module: nn.Module, args: tuple[Tensor], output: Tensor
) -> Tensor:
    ways = rows.current.to(down.device)
    inner = torch.bmm(args[0].float(), down.index_select(0, ways).mT)
    return output + torch.bmm(inner, up.index_select(0, ways).mT).to(output.dtype)


@contextmanager
def attached(model: nn.Module, factors: Factors, ways: Sequence[Way]) -> Iterator[Attachment]:
    """The model with every row computed its way; ``begin`` is told each row's number among ``ways``."""
    with ExitStack() as stack:
        z = _stacked_z(ways)
        together = _Together([stack.enter_context(row_scaled(model, factors, z))] if z else [])
        for name in sorted({module for way in ways if way.lora for module in way.lora.pairs}):
            module = model.get_submodule(name)
            down, up = _stacked_lora(ways, name, module.weight)
            hook = module.register_forward_hook(partial(_add_low_rank, down, up, together))
            stack.callback(hook.remove)
        yield together


class Attached:
    """The ways that a model computes rows by at the moment.

    Changing them takes time, so it is done only where a new one comes.
    """

    def __init__(self, model: nn.Module, factors: Factors) -> None:
        self._model, self._factors = model, factors
        self._stack = ExitStack()
        self.detach()

    def detach(self) -> None:
        """Leave the model as it was."""
        self._stack.close()
        self._places: dict[Way, int] = {}
        self.attachment = Attachment()

    def need(self, ways: Sequence[Way]) -> None:
        """Have the model know these ways; nothing is done where it does."""
        if self._places and self._places.keys() >= set(ways):
            return
        self.detach()
        needed = list(dict.fromkeys(ways))
        self.attachment = self._stack.enter_context(attached(self._model, self._factors, needed))
        self._places = {way: place for place, way in enumerate(needed)}

    def numbers(self, ways: Sequence[Way]) -> LongTensor:
        """The number that ``attachment`` knows each way by, (ways,)."""
        return torch.tensor([self._places[way] for way in ways], device=self._model.device)
