"""Singular value fine-tuning, SVF (Transformer², arXiv 2501.06252, Section 3.1).

An expert is one vector z for each weight matrix W = U diag(σ) Vᵀ, and only z is trained:

    W' = U diag(σ ⊙ z) Vᵀ        (Section 3.1: "W' = U Σ' Vᵀ, where Σ' = Σ ⊗ diag(z)")

Shapes: W (out, in), U (out, r), σ and z (r,), Vᵀ (r, in), with r = min(out, in). How W' is computed with:
``pipeline.methods.common.scaled``.

Experts are mixed by coefficients α: z' = Σ_k α_k z_k (``paper``, Section 3.2), or z' = 1 + Σ_k α_k (z_k − 1)
(``delta``), under which α = 0 is the base model.

An adapter file holds the z of K experts and a ``Mixture``. A single expert is K = 1 with α = 1; an adapted model is K
experts and what the first pass decided. Nothing downstream tells the two apart, and a one-hot α gives back the trained
expert to the bit.

Deviations
1. Parametrisation ``direct`` (z = 1 + δ, δ = 0 at the start) is the default: the adapted model is the base model at
   step 0. ``sigmoid_renormalised`` is the public code's: z = sigmoid(p), p ~ N(mean, std²), times Σσ / Σ(σ ⊙ z).
2. What is stored, mixed and moved is always the effective z, renormalisation included. (The public code mixes p.)
3. A row of α that is all zeros means the base model under ``paper``, too: z' = 0 would erase every matrix.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import LongTensor, Tensor, nn

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.types import Mixture
from pipeline.methods.common.scaled import FactoredLinear, materialised_weights, replaced_forward, row_scaled
from pipeline.model.forward.adapters import Adapter, Attachment, Factors
from pipeline.model.forward.base import layer_of

CONDITION = 1e4  # σ₁/σᵣ up to which the squares of singular values give float32's precision


class Targets(Section, at="svf"):
    """What an expert scales.

    modules: last parts of the names of the scaled linear modules.
    layers: the decoder layers whose modules are scaled: their indices, or a share of all, spread evenly. 0.5 is every
        second one (the paper halves the layers of its largest model and does not say which). None: all of them.
    parametrisation: see Deviation 1. init_mean, init_std: of p, for ``sigmoid_renormalised`` only.
    """

    modules: tuple[str, ...] = Field(min_length=1)
    layers: tuple[int, ...] | float | None = None
    parametrisation: Literal["direct", "sigmoid_renormalised"]
    init_mean: float
    init_std: float


class Mixing(Section, at="mixing"):
    """How experts are mixed. mix: see ``pipeline.core.types.Mixture``."""

    mix: Literal["paper", "delta"]


def in_layers(names: Sequence[str], layers: Sequence[int] | float | None) -> list[str]:
    """The modules among ``names`` that stand in the chosen decoder layers. layers: see ``Targets``."""
    if layers is None:
        return list(names)
    there = {layer_of(name) for name in names}
    if isinstance(layers, int | float):
        # Layer l is chosen where l · share passes a whole number: that does not depend on how many layers there are
        chosen = {layer for layer in there if math.floor((layer + 1) * layers) > math.floor(layer * layers)}
        fits = 0 < layers <= 1 and bool(chosen)
    else:
        chosen = set(layers)
        fits = bool(chosen) and chosen <= there
    if not fits:
        raise UserError(
            f"params.yaml: expected 'svf.layers' to be decoder layers from {min(there)} to {max(there)} or a share of "
            f"them above 0 and at most 1, got {layers}; correct it, or leave it out for all layers"
        )
    return [name for name in names if layer_of(name) in chosen]


def decompose(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, r), σ (r,) descending and Vᵀ (r, in) of W (out, in): float32, each right to its rounding.

    They are computed in float64. LAPACK's float32 decomposition misses W by some 40 times its rounding, and a factored
    model would differ from the materialised one by as much. The eigenvectors of the smaller of WᵀW and WWᵀ take no more
    time than that (measured on 576 × 1536). They lose (σ₁/σᵣ)² of float64's 16 digits, and enough is left up to
    CONDITION.
    """
    wide = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    sigma, left = squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)
    if sigma[-1] * CONDITION > sigma[0]:
        right = (left.T @ wide) / sigma[:, None]
    else:
        left, sigma, right = torch.linalg.svd(wide, full_matrices=False)
    u, vt = (left, right) if weight.shape[0] <= weight.shape[1] else (right.T, left.T)
    return u.float().contiguous(), sigma.float(), vt.float().contiguous()


def effective_z(parameter: Tensor, sigma: Tensor, parametrisation: str) -> Tensor:
    """What scales σ, (r,), of what is trained, ``parameter`` (r,). Differentiable."""
    if parametrisation == "direct":
        return 1 + parameter
    z = torch.sigmoid(parameter)
    return z * (sigma.sum() / (sigma * z).sum())


def mix_z(z: Tensor, coefficients: Tensor, mix: str) -> Tensor:
    """z' of every row: (rows, r), all ones for a row of zeros. z: (experts, r). coefficients: (rows, experts)."""
    if mix == "delta":
        return 1 + coefficients @ (z - 1)
    # A one-hot row must give back its expert to the bit: 1·z plus exact zeros does.
    mixed = coefficients @ z
    return torch.where((coefficients == 0).all(1, keepdim=True), torch.ones_like(mixed), mixed)


@contextmanager
def population(model: nn.Module, factors: Factors, adapter: "SvfAdapter", candidates: Tensor) -> Iterator[Attachment]:
    """The model with one mixture of the adapter's experts for each row. candidates: (rows, layers, experts)."""
    z = {
        name: mix_z(experts, candidates[:, layer_of(name)], adapter.mixture.mix)
        for name, experts in adapter.experts.items()
    }
    with row_scaled(model, factors, z) as attachment:
        yield attachment


class SvfAdapter:
    """K experts and how they are mixed.

    experts: module name → z of every expert, (K, r), float32.
    mixture: its rows are of everything, of each decoder layer or of each prompt, see ``pipeline.core.types.Mixture``.
    """

    kind = "svf"

    def __init__(self, experts: Mapping[str, Tensor], mixture: Mixture) -> None:
        self.experts = dict(experts)
        self.mixture = mixture
        for name, z in self.experts.items():
            if not bool(z.isfinite().all()):
                raise UserError(f"expected finite z for '{name}', got NaN or infinity; train the expert again")

    def config(self) -> dict[str, Any]:
        mixture = self.mixture
        return {"experts": mixture.experts, "axis": mixture.axis, "mix": mixture.mix, "ids": mixture.ids}

    def state(self) -> dict[str, Tensor]:
        # float64 keeps the coefficients as they were decided: float32 would change them on every load
        coefficients = torch.tensor(self.mixture.coefficients, dtype=torch.float64)
        return {"mixture.coefficients": coefficients, **{f"z.{name}": z for name, z in self.experts.items()}}

    def z(self, name: str) -> Tensor:
        """The mixed z of a module: (rows, r), with 1 row unless every prompt has its own mixture."""
        coefficients = torch.tensor(self.mixture.coefficients, dtype=torch.float32)
        if self.mixture.axis == "layer":
            coefficients = coefficients[layer_of(name)][None]
        return mix_z(self.experts[name], coefficients, self.mixture.mix)

    @contextmanager
    def attached(self, model: nn.Module, factors: Factors) -> Iterator[Attachment]:
        z = {name: self.z(name) for name in self.experts}
        if self.mixture.axis == "prompt":
            with row_scaled(model, factors, z, self.mixture.ids) as attachment:
                yield attachment
        else:
            with materialised_weights(model, factors, {name: rows[0] for name, rows in z.items()}) as attachment:
                yield attachment

    def mixed_by(self, mixture: Mixture) -> "SvfAdapter":
        """The same experts under another mixture."""
        return SvfAdapter(self.experts, mixture)


def from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SvfAdapter:
    coefficients = tensors["mixture.coefficients"].tolist()
    mixture = Mixture(
        experts=tuple(config["experts"]),
        axis=config["axis"],
        coefficients=tuple(tuple(row) for row in coefficients),
        mix=config["mix"],
        ids=tuple(config["ids"]),
    )
    experts = {name.removeprefix("z."): z for name, z in tensors.items() if name.startswith("z.")}
    return SvfAdapter(experts, mixture)


def single(z: Mapping[str, Tensor], name: str) -> SvfAdapter:
    """One expert as an adapter. z: module name → (r,)."""
    itself = Mixture(experts=(name,), axis="all", coefficients=((1.0,),), mix="paper")
    return SvfAdapter({module: vector[None].clone() for module, vector in z.items()}, itself)


def stack_experts(adapters: Sequence[Adapter], names: Sequence[str], mix: Literal["paper", "delta"]) -> SvfAdapter:
    """Single experts as one adapter with equal coefficients, for a strategy to mix (``mixed_by``)."""
    singles = []
    for adapter, name in zip(adapters, names, strict=True):
        if not (isinstance(adapter, SvfAdapter) and adapter.mixture.axis == "all"):
            raise UserError(f"expected a single SVF expert, got '{name}' of kind '{adapter.kind}'; pass an expert file")
        singles.append(adapter)
    if any(set(adapter.experts) != set(singles[0].experts) for adapter in singles):
        raise UserError(
            "expected experts over the same modules, got different ones; train them with the same svf.modules"
        )
    z = {module: torch.cat([adapter.z(module) for adapter in singles]) for module in singles[0].experts}
    uniform = Mixture(experts=tuple(names), axis="all", coefficients=((1 / len(names),) * len(names),), mix=mix)
    return SvfAdapter(z, uniform)


class SvfLearner:
    """What is trained: one flat float32 vector, (Σ r,), of the parameters of all scaled matrices, by layer."""

    def __init__(self, factors: Factors, targets: Targets, generator: torch.Generator) -> None:
        self.factors, self.targets = factors, targets
        named = [name for name in factors.modules if name.rpartition(".")[2] in targets.modules]
        self.modules = in_layers(named, targets.layers)
        if not self.modules:
            raise UserError(
                f"expected factors of {', '.join(targets.modules)} in {factors.path}, got none; run "
                "'dvc repro factorize'"
            )
        sizes = [len(factors[name][1]) for name in self.modules]
        start = torch.zeros(sum(sizes))
        if targets.parametrisation == "sigmoid_renormalised":
            start.normal_(targets.init_mean, targets.init_std, generator=generator)
        self.flat = nn.Parameter(start)
        self.sizes = sizes
        self._scaled: dict[str, FactoredLinear] = {}
        self._sigmas = {self.flat.device: {name: factors[name][1] for name in self.modules}}

    def parameters(self) -> list[nn.Parameter]:
        return [self.flat]

    def state(self) -> dict[str, Tensor]:
        return {"flat": self.flat.detach()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.flat.copy_(state["flat"])

    def z(self, device: torch.device | None = None) -> dict[str, Tensor]:
        """Module name → effective z, (r,); differentiable with respect to the trained vector.

        device: where it is wanted (default: where the trained vector is). The vector goes there as a whole.
        """
        pieces = self.flat.to(device or self.flat.device).split(self.sizes)
        sigmas = self._on(pieces[0].device)
        return {
            name: effective_z(piece, sigmas[name], self.targets.parametrisation)
            for name, piece in zip(self.modules, pieces, strict=True)
        }

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        """The singular values of every module on a device, moved there once."""
        if device not in self._sigmas:
            self._sigmas[device] = {name: sigma.to(device) for name, sigma in self._sigmas[self.flat.device].items()}
        return self._sigmas[device]

    def adapter(self, name: str) -> SvfAdapter:
        """The expert as trained so far."""
        return single({module: z.detach() for module, z in self.z().items()}, name)

    @contextmanager
    def sampling(self, model: nn.Module) -> Iterator[Attachment]:
        """Attached for decoding: W' is materialised."""
        with torch.no_grad():
            z = self.z()
        with materialised_weights(model, self.factors, z) as attachment:
            yield attachment

    def retract(self) -> None:
        """Nothing to restore after an optimizer step: z is free."""

    def parts(self) -> dict[nn.Parameter, list[int]]:
        """The trained vector is made of one part for each scaled matrix."""
        return {self.flat: self.sizes}

    def measures(self) -> dict[str, float]:
        """``largest``: the largest |z − 1|, how far the furthest singular value has moved."""
        with torch.no_grad():
            return {"largest": max(float((z - 1).abs().max()) for z in self.z().values())}

    def extra_loss(self) -> None:
        """Nothing beside the loss of the answers."""

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        """Attached for training: W' is factored, and the gradients of several passes add up in ``flat.grad``."""
        with ExitStack() as stack:
            for name in self.modules:
                module = model.get_submodule(name)
                if name not in self._scaled:  # the factors are cast to the weights' dtype once, not every step
                    self._scaled[name] = FactoredLinear(module, self.factors[name], self.factors[name][1])
                stack.enter_context(replaced_forward(module, self._scaled[name]))
            self._rescale()
            yield _Rescaled(self)

    def _rescale(self) -> None:
        """Compute with z as it is now."""
        first = self._scaled[self.modules[0]].u.device
        sigmas = self._on(first)
        for name, z in self.z(first).items():
            scaled = self._scaled[name]
            scaled.scale = (z * sigmas[name]).to(scaled.u.device)  # one of several, where the model is spread


class _Rescaled(Attachment):
    """Computes z anew before every pass: what is trained has changed, and the graph of the last pass is gone."""

    def __init__(self, learner: SvfLearner) -> None:
        self._learner = learner

    def begin(self, rows: LongTensor, prompt_mask: Tensor | None) -> None:
        self._learner._rescale()


Settings = Targets  # the name that every method's settings have


def learner(model: nn.Module, settings: Targets, *, factors: Factors | None, generator: torch.Generator) -> SvfLearner:
    """An untrained expert, as a trainer needs it. factors: of the base model."""
    if factors is None:
        raise UserError(
            "params.yaml: expected a method that reads no singular values of the base model, got SVF; train this row "
            "by train_svf, train_reinforce or train_supervised, which have them"
        )
    return SvfLearner(factors, settings, generator)
