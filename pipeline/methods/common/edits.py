"""Where hidden states are edited, and the low-rank orthonormal matrices they are edited with.

ReFT (arXiv 2404.03592) changes the hidden states that leave chosen decoder layers, at the first n and the last m
tokens of the prompt, written ``f{n}+l{m}``. This module finds those tokens in a padded batch, gathers them, gives them
to a method's formula and scatters the result back. It also keeps matrices R (r, hidden) at R Rᵀ = I.

Shapes: hidden states (batch, seq, hidden); a batch has E edited tokens in all, gathered as (E, hidden).

**Deviations**
1. Tokens are read off the prompt mask of a batch, padded on either side. The public library shifts positions in the
   tokenizer's output by hand, which ties it to one padding side.
2. A token is edited at most once. Where a prompt has fewer than n + m tokens, the suffix is served first (the last
   token predicts the answer) and the prefix takes what is left. The public library halves the prompt instead, which
   for an odd length leaves out the middle token.
3. Orthonormality is restored once an optimizer step, by the polar factor: the nearest orthonormal matrix, which does
   not depend on the order of the rows. The public library orthogonalises in every forward pass.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise, takewhile
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.core.errors import UserError
from pipeline.model.forward.adapters import Attachment
from pipeline.model.forward.base import decoder


@dataclass(frozen=True)
class Positions:
    """The edited tokens of a prompt: its ``first`` n and its ``last`` m."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "Positions":
        """Read ``f7+l7``, ``f1`` or ``l1``; a UserError on anything else, or where no token is edited."""
        match = re.fullmatch(r"(?:f(\d+))?\+?(?:l(\d+))?", text)
        first, last = (int(part or 0) for part in match.groups()) if match else (0, 0)
        if first + last == 0 or ("+" in text) != (first > 0 and last > 0):
            raise UserError(f"expected positions such as 'f7+l7', 'f1' or 'l1', got '{text}'; correct params.yaml")
        return cls(first, last)

    @property
    def parts(self) -> int:
        """How many of the two there are, prefix and suffix."""
        return (self.first > 0) + (self.last > 0)


@dataclass(frozen=True)
class Spots:
    """The E edited tokens of a batch, slot by slot.

    rows, columns: (E,), where they stand. slots: the part of the E tokens that each set of weights edits.
    """

    rows: Tensor
    columns: Tensor
    slots: tuple[slice, ...]


def find_spots(prompt_mask: Tensor, positions: Positions, slots: int, *, before: int = 0, after: int = 0) -> Spots:
    """The tokens to edit.

    prompt_mask: (batch, seq), True on each row's prompt, which stands in one piece.
    slots: 1 where prefix and suffix share their weights (or only one of them is edited), else 2.
    before, after: how many tokens of each prompt stand in other passes, see ``Attachment.begin_part``.
    """
    length = prompt_mask.sum(dim=1) + before + after
    # The number of each prompt token in its prompt, from 0.
    rank = prompt_mask.cumsum(dim=1) - 1 + before
    suffix_length = length.clamp(max=positions.last)
    prefix_length = (length - suffix_length).clamp(max=positions.first)
    prefix = prompt_mask & (rank < prefix_length[:, None])
    suffix = prompt_mask & (rank >= (length - suffix_length)[:, None])
    places = [part.nonzero(as_tuple=True) for part in ([prefix | suffix] if slots == 1 else [prefix, suffix])]
    ends = torch.tensor([0] + [len(rows) for rows, _ in places]).cumsum(0).tolist()
    return Spots(
        rows=torch.cat([rows for rows, _ in places]),
        columns=torch.cat([columns for _, columns in places]),
        slots=tuple(slice(start, end) for start, end in pairwise(ends)),
    )


def slots_for(positions: Positions, tied: bool) -> int:
    """How many sets of weights a layer has: one, or one each for prefix and suffix."""
    return 1 if tied else positions.parts


# Where the models of transformers keep their layers: Llama, Qwen, Gemma, Mistral and most since; GPT-2; BERT, RoBERTa;
# DistilBERT.
STACKS = ("layers", "h", "encoder.layer", "transformer.layer")


def stack_of(model: nn.Module, pattern: str | None) -> Sequence[nn.Module]:
    """The layers of a decoder or an encoder, in depth order.

    pattern: the name of a layer in ``model`` with ``{layer}`` for its number, e.g. ``transformer.h.{layer}``. None:
        where the models of transformers keep theirs.
    """
    if pattern is None:
        body = decoder(model)
        for name in STACKS:
            with suppress(AttributeError):
                layers = body.get_submodule(name)
                if isinstance(layers, nn.ModuleList):
                    return list(layers)
        raise UserError(
            f"expected the layers of {type(body).__name__} under {', '.join(STACKS)}, found none there; name them by "
            "layer_names in params.yaml, say 'transformer.blocks.{layer}'"
        )
    modules = dict(model.named_modules())
    names = (pattern.replace("{layer}", str(number)) for number in count())
    stack = [modules[name] for name in takewhile(modules.__contains__, names)] if "{layer}" in pattern else []
    if not stack:
        raise UserError(
            f"expected layer_names to name the layers of {type(model).__name__} by '{{layer}}', got '{pattern}', which "
            "names none; correct params.yaml"
        )
    return stack


def width_of(model: PreTrainedModel) -> int:
    """The size of a hidden state, also of a model that reads more than text."""
    return model.config.get_text_config().hidden_size


def choose_layers(layers: Literal["all"] | Sequence[int], depth: int) -> tuple[int, ...]:
    """Indices of the edited layers, ascending. layers: ``all`` or a list. depth: layers of the decoder."""
    chosen = tuple(range(depth)) if layers == "all" else tuple(sorted({int(layer) for layer in layers}))
    if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
        raise UserError(f"expected layers from 0 to {depth - 1}, got {list(chosen)}; correct params.yaml")
    return chosen


# What is added to edited tokens: (layer, slot, tokens (E, hidden) in float32, their rows (E,)) -> (E, hidden).
Edit = Callable[[int, int, Tensor, Tensor], Tensor]


class Editing(Attachment):
    """Which tokens of the coming forward pass are edited. ``spots`` is None where none are, as on a decode step."""

    def __init__(self, positions: Positions, slots: int) -> None:
        self.positions = positions
        self.slots = slots
        self.spots: Spots | None = None
        self.tail = max(1, positions.last)

    def begin(self, rows: Tensor, prompt_mask: Tensor | None) -> None:
        self.spots = None if prompt_mask is None else find_spots(prompt_mask, self.positions, self.slots)

    def begin_part(self, rows: Tensor, prompt_mask: Tensor, *, before: int, after: int) -> None:
        self.begin(rows, prompt_mask)
        if before or after:
            self.spots = find_spots(prompt_mask, self.positions, self.slots, before=before, after=after)


def layer_output(output: Tensor | tuple) -> Tensor:
    """The hidden states (batch, seq, hidden) among what a decoder layer returns."""
    return output[0] if isinstance(output, tuple) else output


def _edit_output(
    layer: int, editing: Editing, edit: Edit, module: nn.Module, args: tuple, output: Tensor | tuple
) -> Tensor | tuple | None:
    spots = editing.spots
    if spots is None:
        return None
    hidden = layer_output(output)
    # Edited in float32: in bfloat16 a small edit of a large state would be rounded away before it is learnt. And where
    # the adapter is, which may be on another device than the layer.
    places = spots.rows.to(hidden.device), spots.columns.to(hidden.device)
    tokens = hidden[places].float().to(spots.rows.device)
    added = torch.cat(
        [edit(layer, slot, tokens[part], spots.rows[part]) for slot, part in enumerate(spots.slots)], dim=0
    )
    edited = hidden.index_put(places, (tokens + added).to(hidden))
    return (edited, *output[1:]) if isinstance(output, tuple) else edited


@contextmanager
def edited_layers(stack: Sequence[nn.Module], layers: Sequence[int], editing: Editing, edit: Edit) -> Iterator[None]:
    """Inside the block the outputs of ``layers`` are edited; the weights are never touched."""
    handles = [stack[layer].register_forward_hook(partial(_edit_output, layer, editing, edit)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def subspace_coordinates(tokens: Tensor, rotation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Wh + b − Rh, (E, r): what an edit changes of tokens h (E, hidden), in the coordinates of R's rows.

    rotation, weight: R and W, (r, hidden). bias: b, (r,). Computed as (W − R)h + b, which is one product instead of
    two, and exactly 0 where W = R and b = 0.
    """
    return torch.addmm(bias, tokens, (weight - rotation).T)


def orthonormalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthonormal rows, (R Rᵀ)^(−1/2) R, of matrices R (..., r, hidden) of full rank.

    Computed in float64, so that R Rᵀ = I to float32's precision: r × r eigenproblems, all matrices at once.
    """
    exact = matrices.double()
    values, vectors = torch.linalg.eigh(exact @ exact.mT)
    return ((vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT @ exact).to(matrices.dtype)


def random_orthonormal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Random matrices (..., r, hidden) with orthonormal rows, r ≤ hidden; float32."""
    if shape[-2] > shape[-1]:
        raise UserError(
            f"expected at most {shape[-1]} orthonormal directions (the hidden size), got {shape[-2]}; "
            "lower the rank or the number of subspaces in params.yaml"
        )
    return orthonormalised(torch.randn(*shape, generator=generator))


def random_linear(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Random weights (..., out, in), uniform within ±1/√in as torch initialises a linear layer; float32."""
    return (torch.rand(*shape, generator=generator) * 2 - 1) / shape[-1] ** 0.5


def copy_state(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Overwrite parameters by the tensors of the same names."""
    if parameters.keys() != tensors.keys():
        raise UserError(f"expected the tensors {sorted(parameters)}, got {sorted(tensors)}; run the stage again")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
