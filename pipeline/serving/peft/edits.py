"""LoReFT (``pipeline.methods.reft``) and CS-ReFT (``pipeline.methods.csreft``) as methods of peft's.

peft's layers stand in place of single modules and see what enters and leaves them. An edit has to know which tokens are
the prompt's, and a router reads one layer to open the gates of others. So an adapter is one module beside the decoder's
layers, ``reft``, and each call of the model is watched: before it, the prompt is found (``prompts``) and the edits hang
on the layers; behind it, they are taken off again, unless gradients are still to pass through them.

What the project's own trainer does between two steps is done here when the next pass begins, or when the state is read:
matrices whose rows have to be orthonormal are made so again. The ``loss`` of the model's output has the penalty and the
supervision of CS-ReFT's router added, by the share of the answers' tokens that a pass has of its whole step; a trainer
that makes a loss of its own is refused where there are any. Edits are float32, whatever type the model is cast to.

Edits are no weights: they cannot be merged.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.methods import csreft, reft
from pipeline.methods.common.routing import Gating
from pipeline.model.forward.base import decoder
from pipeline.serving.peft import Kind, register
from pipeline.serving.peft.prompts import IGNORED, prompt_of

ROUNDED = 1e-5  # of an entry of R Rᵀ
PLACE = "reft"  # what the module beside the decoder's layers is called
ROUTER = {
    "input": "last_token",
    "layer": 0,
    "gate": "hard",
    "penalty": "sparsity",
    "penalty_weight": 0.0,
    "supervision": 0.0,
    "learning_rate_ratio": 1.0,
}


@dataclass
class EditsConfig(PeftConfig):
    """Which edits are made.

    rank: of each edit. layers: ``all`` or indices of decoder layers. positions: the edited tokens, ``f{n}+l{m}``: the
        first n and the last m of a prompt. tied: prefix and suffix share their weights. initial: ``identity`` (the base
        model at the start) or ``random``. seed: of the start. layer_names: of a model that keeps its layers in an
        unknown place, ``{layer}`` for the number. target_modules: set by the tuner.
    """

    rank: int = 4
    layers: Any = "all"
    positions: str = "f5+l5"
    tied: bool = True
    initial: str = "identity"
    seed: int = 0
    layer_names: str | None = None
    target_modules: Any = None
    modules_to_save: list[str] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that the method knows."""
        return {name: getattr(self, name) for name in ("rank", "layers", "positions", "tied", "initial", "layer_names")}

    def adapter(self, model: nn.Module) -> "reft.Reft | csreft.CsReft":
        """Untrained edits for a model."""
        raise NotImplementedError

    @property
    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass
class LoReftConfig(EditsConfig):
    """LoReFT, or by ``formula`` DiReFT or NoReFT."""

    formula: str = "loreft"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = Kind.LOREFT

    def adapter(self, model: nn.Module) -> reft.Reft:
        parsed = reft.Settings.parse({**self.settings(), "formula": self.formula}, "LoReftConfig")
        return reft.initial(model, parsed, self._generator)


@dataclass
class CsReftConfig(EditsConfig):
    """CS-ReFT: a subspace of ``rank`` for each skill, and a router.

    skills: their names. orthonormal: ``across`` all subspaces or ``within`` each. router: settings of
        ``pipeline.methods.common.routing.Router`` that are to be others than ``ROUTER``; its layer is at most the first
        edited one. Its ``learning_rate_ratio`` is for the project's own trainer. With ``supervision`` above 0, a
        training pass needs ``skills``, (batch,), the number of each row's skill.
    """

    skills: list[str] = field(default_factory=list)
    orthonormal: str = "across"
    router: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = Kind.CSREFT
        self.router = {**ROUTER, **self.router}

    def adapter(self, model: nn.Module) -> csreft.CsReft:
        if not self.skills:
            raise UserError("expected the names of skills, one subspace for each, got none; give CsReftConfig skills")
        own = {"orthonormal": self.orthonormal, "router": self.router}
        parsed = csreft.Settings.parse({**self.settings(), **own}, "CsReftConfig")
        return csreft.initial(model, parsed, self.skills, self._generator)


class Edits(nn.Module, BaseTunerLayer):
    """The edits of each adapter, and what happens around a call of the model. model: the one whose layers are edited.

    gates: adapter → (batch, k), how far CS-ReFT's gates were open in the last pass that read a prompt.
    """

    adapter_layer_names = ("reft_edits",)
    other_param_names = ()

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.reft_edits = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self.gates: dict[str, Tensor] = {}
        self._disable_adapters = False
        self._active_adapter: Any = []
        self._stack = ExitStack()
        self._attached: dict[str, Any] = {}
        self._inputs: Mapping[str, Any] = {}
        self.register_state_dict_pre_hook(Edits._retract)
        self._handles = (
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        )

    def update_layer(self, adapter_name: str, adapter: nn.Module) -> None:
        """Add an adapter."""
        self.reft_edits[adapter_name] = adapter

    def leave(self) -> None:
        """Have the model be as it was."""
        self._stack.close()
        for handle in self._handles:
            handle.remove()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise UserError(
            "expected an adapter that can be written into weights, got edits of the prompt's hidden states; keep the "
            "adapter beside the model"
        )

    def unmerge(self) -> None:
        """Nothing was merged."""

    def _apply(self, fn: Any, recurse: bool = True) -> "Edits":
        super()._apply(fn, recurse)
        for parameter in self.parameters():
            if parameter.dtype != torch.float32 and parameter.is_floating_point():
                parameter.data = parameter.data.float()
        return self

    def __deepcopy__(self, memo: Any) -> "Edits":
        raise UserError(
            "expected no copy of a model whose hidden states are edited: its hooks would edit by the first one's "
            "adapter; save the adapter, and load it into another model"
        )

    # ---- around a call of the model ----------------------------------------------------------------------------------

    @property
    def _used(self) -> dict[str, Any]:
        if self.disable_adapters:
            return {}
        return {name: self.reft_edits[name] for name in self.active_adapters if name in self.reft_edits}

    def _before(self, model: nn.Module, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Find the prompt and hang the edits on the layers; the model is not shown what is meant for them alone."""
        self._stack.close()
        self._attached = {}
        named = {**({"input_ids": args[0]} if args else {}), **inputs}
        plain = {name: value for name, value in inputs.items() if name not in ("prompt_mask", "skills")}
        used = self._used
        taken = any(parameter.requires_grad for adapter in used.values() for parameter in adapter.parameters())
        learning = model.training and torch.is_grad_enabled() and taken
        prompt = prompt_of(named, learning=learning) if used else None
        if prompt is None:
            return args, plain
        self._retract()
        rows = torch.arange(len(prompt), device=prompt.device)
        for name, adapter in used.items():
            if learning:
                _tell_skills(adapter, named.get("skills"))
            attached = adapter.learning(model) if learning else adapter.attached(model, None)
            self._attached[name] = self._stack.enter_context(attached)
            self._attached[name].begin(rows, prompt)
        self._inputs = named if learning else {}
        return args, plain

    def _after(self, model: nn.Module, args: tuple, inputs: dict[str, Any], output: Any) -> Any:
        """Add what the router costs to the loss, and take the edits off where no gradient is to pass them."""
        for name, attached in self._attached.items():
            if isinstance(attached, Gating) and attached.gates is not None:
                self.gates[name] = attached.gates.detach()
        if self._inputs and output is not None:
            output = self._with_extra(output)
        self._inputs = {}
        if not torch.is_grad_enabled():
            self._stack.close()
        return output

    def _with_extra(self, output: Any) -> Any:
        costly = [adapter for name in self._attached if _costs(adapter := self.reft_edits[name])]
        if not costly:
            return output
        if getattr(output, "loss", None) is None or self._inputs.get("fused_lm_head"):  # which is TRL's own loss
            raise UserError(
                "expected a trainer that takes the loss of the model's output, which the router's penalty and "
                "supervision are added to, got one that makes its own; set penalty_weight and supervision to 0, or use "
                "transformers' Trainer"
            )
        extras = [adapter.extra_loss() for adapter in costly]
        share: Tensor | float = 1.0
        items = self._inputs.get("num_items_in_batch")
        if items is not None:  # the loss is a sum over the pass's tokens, divided by those of the whole step
            share = (self._inputs["labels"] != IGNORED).sum() / items
        output.loss = output.loss + share * torch.stack(extras).sum()
        return output

    def _retract(self, *_: Any) -> None:
        """Where an optimizer's step has led away from R Rᵀ = I: back to it."""
        for adapter in self.reft_edits.values():
            if not adapter.rotation.is_meta and _astray(adapter):
                adapter.retract()


def _astray(adapter: Any) -> bool:
    """Whether rows that should be orthonormal are not, by more than rounding."""
    config = adapter.config()
    if config.get("formula", "loreft") != "loreft":
        return False
    groups = adapter.skills if config.get("orthonormal") == "within" else 1
    rows = adapter.rotation.detach().unflatten(-2, (groups, -1))
    unit = torch.eye(rows.shape[-2], device=rows.device)
    return bool((rows @ rows.mT - unit).abs().max() > ROUNDED)


def _costs(adapter: Any) -> bool:
    """Whether an adapter has a loss beside that of the answers."""
    weights = adapter.router if isinstance(adapter, csreft.CsReft) else {"input": "none"}
    return weights["input"] != "none" and bool(weights["penalty_weight"] or weights["supervision"])


def _tell_skills(adapter: Any, skills: Tensor | None) -> None:
    if not isinstance(adapter, csreft.CsReft) or adapter.router["supervision"] <= 0:
        return
    if skills is None:
        raise UserError(
            f"expected 'skills' among a training pass's inputs, the number of each row's skill, because the router's "
            f"supervision is {adapter.router['supervision']}, got none; give that column (a Trainer passes it on with "
            "remove_unused_columns=False), or set supervision to 0"
        )
    adapter.supervise(skills.tolist())


class EditsTuner(BaseTuner):
    """Puts ``Edits`` beside the layers of the model's decoder."""

    prefix = "reft_"
    tuner_layer_cls = Edits

    def _prepare_adapter_config(self, peft_config: EditsConfig, model_config: Mapping[str, Any]) -> EditsConfig:
        peft_config.target_modules = re.escape(place_of(self.model))
        return peft_config

    def _create_and_replace(
        self,
        peft_config: EditsConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        edits = getattr(target, PLACE, None)
        if edits is None:
            edits = Edits(self.model)
            target.add_module(PLACE, edits)
        adapter = peft_config.adapter(self.model)
        peft_config.layers = list(adapter.layers)
        edits.update_layer(adapter_name, adapter)
        edits.set_adapter(self.active_adapters, inference_mode=peft_config.inference_mode)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: Sequence[str] | None = None,
    ) -> nn.Module:
        body = decoder(self.model)
        edits: Edits = getattr(body, PLACE)
        if merge:
            edits.merge()
        edits.leave()
        delattr(body, PLACE)
        del self.model.peft_config
        return self.model


class LoReftTuner(EditsTuner):
    """The tuner of ``LoReftConfig``."""


class CsReftTuner(EditsTuner):
    """The tuner of ``CsReftConfig``."""


def place_of(model: nn.Module) -> str:
    """The decoder's name within its model."""
    body = decoder(model)
    return next(name for name, module in model.named_modules() if module is body)


register(Kind.LOREFT, LoReftConfig, LoReftTuner)
register(Kind.CSREFT, CsReftConfig, CsReftTuner)
