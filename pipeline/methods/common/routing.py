"""Gates: which subspaces are open for a prompt, and what training makes of that (CS-ReFT, arXiv 2503.10617).

A router reads one hidden state of each prompt and gives each of k skills a probability; a gate α_i is made of it.
``pipeline.methods.csreft`` has the formula that the gates stand in, and what deviates from the paper.

Shapes: a batch has gates and probabilities (batch, k); the router reads (batch, hidden).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from pipeline.core.config import Section
from pipeline.methods.common.edits import Editing, Positions, layer_output

THRESHOLD = 0.5  # of a hard gate, on the sigmoid's output


class Router(Section):
    """What opens the subspaces.

    input: ``last_token`` (its hidden state as it leaves ``layer``), ``mean_embedding``, ``first_token``, or
        ``none``: all gates always open, no router.
    gate: ``hard`` (0 or 1, at 0.5, straight-through), ``soft`` (the probability), or ``told``: hard, but the gates of a
        training prompt are its skill.
    penalty: ``sparsity`` (Σ_i α_i, mean over prompts) or ``balance`` (spread of the gates' mean openings).
    penalty_weight: λ, of the penalty in the loss.
    supervision: weight of the cross-entropy of the gates with the prompts' skills; 0 for none.
    learning_rate_ratio: the router's learning rate over the edits'.
    """

    input: Literal["last_token", "mean_embedding", "first_token", "none"]
    layer: int
    gate: Literal["hard", "soft", "told"]
    penalty: Literal["sparsity", "balance"]
    penalty_weight: float
    supervision: float
    learning_rate_ratio: float = Field(gt=0)


# ---- from probabilities to gates, and what they cost -----------------------------------------------------------------


class _HardGate(torch.autograd.Function):
    """1 above the threshold, 0 below; the gradient passes straight through. Exactly 0 and 1, unlike p + (g − p)."""

    @staticmethod
    def forward(context: Any, probabilities: Tensor) -> Tensor:
        return (probabilities > THRESHOLD).to(probabilities.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


def hard_gate(probabilities: Tensor) -> Tensor:
    """Gates 0 or 1, with the gradient of the probabilities."""
    return _HardGate.apply(probabilities)


GATES = {"hard": hard_gate, "soft": lambda probabilities: probabilities, "told": hard_gate}


def sparsity(probabilities: Tensor) -> Tensor:
    """Ω = Σ_i α_i of (prompts, k), mean over prompts: each open gate costs."""
    return probabilities.sum(dim=1).mean()


def balance(probabilities: Tensor) -> Tensor:
    """Ω = the squared coefficient of variation of the k gates' mean openings: gates used unequally cost."""
    opening = probabilities.mean(dim=0)
    return opening.var(correction=0) / opening.mean().square()


PENALTIES = {"sparsity": sparsity, "balance": balance}


def balanced_cross_entropy(probabilities: Tensor, skills: Tensor) -> Tensor:
    """Cross-entropy of gates (prompts, k) with one-hot skills (prompts, k), in nats, mean over prompts.

    Half of the weight is on the gate that should open, half on all those that should close.
    """
    weight = skills / 2 + (1 - skills) / (2 * max(1, skills.shape[1] - 1))
    losses = functional.binary_cross_entropy(probabilities, skills, weight=weight, reduction="none")
    return losses.sum(dim=1).mean()


# ---- what the router reads, and when ---------------------------------------------------------------------------------


class Gating(Editing):
    """The gates of the coming forward pass: told, or decided once for each prompt, before its first edit.

    told: (prompts, k), gates of the training prompts, which hold while gradients are taken; None where none are told.
    probabilities, gates: (batch, k) after the router has seen the batch, None before.
    """

    def __init__(self, positions: Positions, slots: int, told: Tensor | None) -> None:
        super().__init__(positions, slots)
        self.told = told
        self.prompts: Tensor | None = None
        self.prompt_mask: Tensor | None = None
        self.probabilities: Tensor | None = None
        self.gates: Tensor | None = None

    def begin(self, rows: Tensor, prompt_mask: Tensor | None) -> None:
        super().begin(rows, prompt_mask)
        self.prompts, self.prompt_mask = rows, prompt_mask
        self.probabilities = None
        told = self._telling
        self.gates = None if told is None else told[rows]

    def begin_part(self, rows: Tensor, prompt_mask: Tensor, *, before: int, after: int) -> None:
        super().begin_part(rows, prompt_mask, before=before, after=after)
        if after:
            self.prompt_mask = None  # the router reads a prompt where it ends

    def alike(self, rows: Tensor) -> list[int] | None:
        """Prompts are alike where they are told the same gates, which edit their first tokens. Gates that are not told
        are decided at a prompt's end, and nothing can be shared."""
        told = self._telling
        return None if told is None else told[rows].argmax(dim=1).tolist()

    @property
    def _telling(self) -> Tensor | None:
        return self.told if torch.is_grad_enabled() else None


def router_input(states: Tensor, prompt_mask: Tensor, kind: str) -> Tensor:
    """What the router reads of states (batch, seq, hidden): (batch, hidden), float32, of root mean square 1."""
    every = torch.arange(len(states), device=states.device)
    position = torch.arange(states.shape[1], device=states.device)
    if kind == "mean_embedding":
        weights = prompt_mask / prompt_mask.sum(dim=1, keepdim=True)
        read = torch.einsum("bs,bsh->bh", weights, states.float())
    elif kind == "first_token":
        read = states[every, prompt_mask.int().argmax(dim=1)].float()
    else:
        read = states[every, (prompt_mask * position).argmax(dim=1)].float()
    return functional.rms_norm(read, read.shape[-1:])


@contextmanager
def watched(layers: Sequence[nn.Module], router: dict[str, Any], watch: Callable[[Tensor], None]) -> Iterator[None]:
    """Inside the block ``watch`` is shown the states that the router reads, before any of them is edited."""
    if router["input"] == "last_token":
        layer = layers[router["layer"]]
        handle = layer.register_forward_hook(lambda module, args, output: watch(layer_output(output)))
    else:
        # What enters the first layer are the embeddings, as the model itself scales them.
        handle = layers[0].register_forward_pre_hook(
            lambda module, args, named: watch(args[0] if args else named["hidden_states"]), with_kwargs=True
        )
    try:
        yield
    finally:
        handle.remove()
