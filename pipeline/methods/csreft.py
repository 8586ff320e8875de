"""CS-ReFT: one low-rank subspace for each skill, and a router that opens them for a prompt (arXiv 2503.10617).

At each edited layer and prompt token, for k skills with subspaces of rank r, the hidden state h becomes

    h' = h + Σ_i α_i(x) · R_iᵀ(W_i h + b_i − R_i h)

with R_i, W_i (r, hidden), b_i (r,), R_i R_iᵀ = I, and α(x) (k,), one gate for each skill and prompt. The router is a
network hidden → hidden/2 → k with a ReLU and a sigmoid (``pipeline.methods.common.routing``). Edits and router are
trained together, by next-token prediction on the answers of all skills plus λ Ω(α).

The subspaces of a layer and slot are stored stacked, (k·r, hidden), so that the sum over i is two products.

**Deviations**, where the paper is silent or cannot be followed
1. The router reads the hidden state of the last prompt token where it leaves ``router.layer``, and edits are made at
   that layer or later, so that the gates of a prompt are known before its first edit. The paper reads the embedding of
   the first token (``first_token``), which under a chat template is the same for every prompt; ``mean_embedding`` is a
   third choice.
2. The router's input is divided by its root mean square: hidden states differ in size by orders of magnitude between
   layers and models.
3. ``orthonormal: across`` keeps R_i R_jᵀ = 0, too: one orthonormal (k·r, hidden) matrix for each layer and slot, so
   that no skill's edit can change what another's reads. The paper has only R_i R_iᵀ = I (``within``).
4. Gates are hard, at 0.5, with a straight-through gradient, or soft. All start open (the last bias is positive): a
   subspace behind a closed gate is not trained, so a gate should close by what it learns and not by luck.
5. The router can be told the skill of a training prompt: ``supervision`` times the cross-entropy of gate i with "this
   prompt is of skill i" joins the loss. 0 leaves it to the penalty and the answers, as in the paper. The gate that
   should open weighs as much as all those that should close. Weighed alike, a router that cannot tell skills apart yet
   learns that a gate is rarely open and shuts all of them, which stops the training of the edits (seen for four steps
   of 36, with three skills).
6. Gates can be ``told``: the gates of a training prompt are its skill, the router learns from the skills beside them,
   and answers are given by its own hard gates. No subspace is then trained on another skill's prompts, whatever the
   router knows yet. The gates are known before a prompt is read, so what prompts of a skill begin with is computed
   once.
7. The router learns ``learning_rate_ratio`` times as fast as the edits. Subspaces that are trained while all gates are
   open come to rely on each other, and the sooner gates settle, the less is lost when they do. Validation loss on three
   skills after 18 steps: 0.209 with neither, 0.168 with the balance of 5, 0.153 with a ratio of 5, 0.150 with both.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.methods.common.edits import (
    Positions,
    choose_layers,
    copy_state,
    edited_layers,
    orthonormalised,
    random_linear,
    random_orthonormal,
    slots_for,
    stack_of,
    subspace_coordinates,
    width_of,
)
from pipeline.methods.common.routing import (
    GATES,
    PENALTIES,
    Gating,
    Router,
    balanced_cross_entropy,
    router_input,
    watched,
)
from pipeline.model.forward.adapters import Attachment, Factors
from pipeline.model.forward.base import decoder

OPEN_BIAS = 1.0  # the router's last bias at the start: sigmoid(1) = 0.73, an open gate


class Settings(Section, at="csreft.adapter"):
    """Which edits are made; one subspace for each trained skill.

    rank: of each subspace. layers: ``all`` or indices; the output of each is edited.
    positions: the edited tokens of a prompt, ``f{n}+l{m}``. tied: prefix and suffix share their weights.
    initial: ``identity`` (W = R, b = 0: exactly the base at step 0) or ``random``.
    orthonormal: see Deviation 3.
    layer_names: of a model that keeps its layers in an unknown place, ``{layer}`` for the number.
    """

    rank: int
    layers: Literal["all"] | tuple[int, ...]
    positions: str
    tied: bool
    initial: Literal["identity", "random"]
    orthonormal: Literal["within", "across"]
    router: Router
    layer_names: str | None = None


class CsReft(nn.Module):
    """Trainable subspaces and their router.

    rotation, weight: (layers, slots, k·r, hidden); bias: (layers, slots, k·r); the router's two layers; float32.
    """

    kind = "csreft"
    rotation: Tensor
    weight: Tensor
    bias: Tensor
    router_in_weight: Tensor
    router_in_bias: Tensor
    router_out_weight: Tensor
    router_out_bias: Tensor

    def __init__(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self._config = config
        self.layers: tuple[int, ...] = tuple(config["layers"])
        self.positions = Positions.parse(config["positions"])
        self.skills = len(config["skills"])
        self.router = config["router"]
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))
        # The skill of each training prompt, (prompts,), by its row; given by ``supervise``.
        self._labels: Tensor | None = None
        self._gating: Gating | None = None

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        copy_state(dict(self.named_parameters()), tensors)

    @property
    def router_parameters(self) -> int:
        """How many of the trainable numbers are the router's."""
        return sum(parameter.numel() for name, parameter in self.named_parameters() if name.startswith("router_"))

    def retract(self) -> None:
        """After an optimizer step: back to R_i R_iᵀ = I, and to R_i R_jᵀ = 0 where that is asked for."""
        with torch.no_grad():
            self.rotation.copy_(_orthonormalised(self.rotation, self.skills, self._config["orthonormal"]))

    def supervise(self, labels: Sequence[int]) -> None:
        """Tell the skill of each training prompt. labels: its number, at the row that ``begin`` will name."""
        self._labels = torch.tensor(labels)

    def extra_loss(self) -> Tensor | None:
        """λ Ω(α), and the cross-entropy with the prompts' skills, of the last forward pass; means over its prompts."""
        if self.router["input"] == "none":
            return None
        gating = self._gating
        if gating is None or gating.prompts is None or gating.probabilities is None:
            raise RuntimeError("expected extra_loss after a forward pass over prompts, within attached")
        prompts, probabilities = gating.prompts, gating.probabilities
        loss = self.router["penalty_weight"] * PENALTIES[self.router["penalty"]](probabilities)
        if self.router["supervision"] > 0:
            if self._labels is None:
                raise UserError(
                    "expected the skills of the training prompts, since csreft.adapter.router.supervision is not 0, "
                    "got none; call supervise first"
                )
            skills = functional.one_hot(self._labels[prompts.cpu()], self.skills).to(probabilities)
            loss = loss + self.router["supervision"] * balanced_cross_entropy(probabilities, skills)
        return loss

    def rates(self) -> Mapping[nn.Parameter, float]:
        """The router's parameters, each with its learning rate over that of the edits."""
        named = self.named_parameters()
        return {part: self.router["learning_rate_ratio"] for name, part in named if name.startswith("router_")}

    def route(self, read: Tensor) -> Tensor:
        """Probabilities (batch, k) of a router input (batch, hidden): sigmoid(A₂ relu(A₁x + c₁) + c₂)."""
        inner = functional.relu(functional.linear(read, self.router_in_weight, self.router_in_bias))
        return functional.linear(inner, self.router_out_weight, self.router_out_bias).sigmoid()

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors | None) -> Iterator[Gating]:
        """Gate and edit the prompts of ``model``'s forward passes inside the block. Its weights are never touched."""
        with self._attached(model, None) as gating:
            yield gating

    @contextmanager
    def _attached(self, model: nn.Module, told: Tensor | None) -> Iterator[Gating]:
        """told: see ``Gating``."""
        self.to(next(model.parameters()).device)
        gating = Gating(self.positions, slots_for(self.positions, self._config["tied"]), told)
        layers = stack_of(model, self._config.get("layer_names"))
        place = {layer: index for index, layer in enumerate(self.layers)}
        rank = self.rotation.shape[2] // self.skills

        def open_gates(states: Tensor) -> None:
            if gating.prompt_mask is not None:
                read = router_input(states, gating.prompt_mask.to(states.device), self.router["input"])
                gating.probabilities = self.route(read.to(gating.prompt_mask.device))
                if gating.gates is None:
                    gating.gates = GATES[self.router["gate"]](gating.probabilities)

        def edit(layer: int, slot: int, tokens: Tensor, rows: Tensor) -> Tensor:
            at = place[layer], slot
            coordinates = subspace_coordinates(tokens, self.rotation[at], self.weight[at], self.bias[at])
            if gating.gates is not None:
                # Σ_i α_i R_iᵀ(·)_i: each subspace's coordinates times its gate, then one product.
                coordinates = coordinates * gating.gates[rows].repeat_interleave(rank, dim=1)
            return coordinates @ self.rotation[at]

        with ExitStack() as stack:
            if self.router["input"] != "none":
                # Registered before the edits, so that the router sees its layer's output as it was.
                stack.enter_context(watched(layers, self.router, open_gates))
            stack.enter_context(edited_layers(layers, self.layers, gating, edit))
            self._gating = gating
            stack.callback(setattr, self, "_gating", None)
            yield gating

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        """As ``attached``: gradients reach edits and router through it."""
        told = None
        if self.router["gate"] == "told" and self._labels is not None:
            told = functional.one_hot(self._labels, self.skills).float().to(next(model.parameters()).device)
        with self._attached(model, told) as gating:
            yield gating


def _orthonormalised(rotation: Tensor, skills: int, orthonormal: str) -> Tensor:
    """Stacked subspaces (..., k·r, hidden) with orthonormal rows, within each or across all of them."""
    groups = skills if orthonormal == "within" else 1
    apart = rotation.unflatten(-2, (groups, rotation.shape[-2] // groups))
    return orthonormalised(apart).flatten(-3, -2)


def initial(model: PreTrainedModel, settings: Settings, skills: Sequence[str], generator: torch.Generator) -> CsReft:
    """Untrained subspaces, one for each of the named skills, and an untrained router, for ``model``."""
    hidden = width_of(model)
    depth = len(stack_of(model, settings.layer_names))
    layers = choose_layers(settings.layers, depth)
    router = settings.router
    if router.gate == "told" and (router.input != "last_token" or router.supervision <= 0):
        raise UserError(
            "expected csreft.adapter.router.supervision above 0 and input 'last_token' with gate 'told', whose router "
            f"learns from the skills alone, got {router.supervision} and '{router.input}'; correct params.yaml"
        )
    if router.input == "last_token" and not 0 <= router.layer <= layers[0]:
        raise UserError(
            f"expected csreft.adapter.router.layer from 0 to {layers[0]}, the first edited layer (the gates must be "
            f"known before the first edit), got {router.layer}; lower it, or edit later layers only"
        )
    slots = slots_for(Positions.parse(settings.positions), settings.tied)
    shape = (len(layers), slots, len(skills) * settings.rank, hidden)
    rotation = random_orthonormal(shape, generator)  # across all subspaces, whichever is kept up later
    tensors = {
        "rotation": rotation,
        "weight": rotation.clone() if settings.initial == "identity" else random_linear(shape, generator),
        "bias": torch.zeros(shape[:-1]),
    }
    if router.input != "none":
        tensors |= {
            "router_in_weight": random_linear((hidden // 2, hidden), generator),
            "router_in_bias": torch.zeros(hidden // 2),
            "router_out_weight": random_linear((len(skills), hidden // 2), generator),
            "router_out_bias": torch.full((len(skills),), OPEN_BIAS),
        }
    config = {
        "layers": list(layers),
        "positions": settings.positions,
        "tied": settings.tied,
        "orthonormal": settings.orthonormal,
        "skills": list(skills),
        "router": router.model_dump(mode="json"),
        **({"layer_names": settings.layer_names} if settings.layer_names else {}),
    }
    return CsReft(config, tensors)


def gates(
    adapter: CsReft, model: nn.Module, prompts: Sequence[Sequence[int]], batch_tokens: int
) -> tuple[Tensor, Tensor]:
    """Gates and probabilities, (prompts, k) each, of prompts given as token ids; at most ``batch_tokens`` at once."""
    device = next(model.parameters()).device
    batch = max(1, batch_tokens // max(len(prompt) for prompt in prompts))
    opened, probable = [], []
    with torch.no_grad(), adapter.attached(model, None) as gating:
        for start in range(0, len(prompts), batch):
            chunk = prompts[start : start + batch]
            longest = max(len(prompt) for prompt in chunk)
            ids = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in chunk], device=device)
            mask = torch.tensor(
                [[True] * len(prompt) + [False] * (longest - len(prompt)) for prompt in chunk], device=device
            )
            gating.begin(torch.arange(start, start + len(chunk), device=device), mask)
            decoder(model)(input_ids=ids, attention_mask=mask, use_cache=False)
            always = torch.ones(len(chunk), adapter.skills)  # where there is no router
            opened.append(always if gating.gates is None else gating.gates.cpu())
            probable.append(always if gating.probabilities is None else gating.probabilities.cpu())
    return torch.cat(opened), torch.cat(probable)


def from_state(config: dict[str, Any], tensors: dict[str, Tensor]) -> CsReft:
    return CsReft(config, tensors)
