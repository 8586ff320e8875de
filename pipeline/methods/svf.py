"""Singular value fine-tuning (Transformer², arXiv 2501.06252, Section 3.1).

An expert is one vector z per weight matrix. With W = U diag(σ) Vᵀ, shapes W (out, in), r = min(out, in),

    W' = U diag(σ ⊙ z) Vᵀ        (Section 3.1: "W' = U Σ' Vᵀ, where Σ' = Σ ⊗ diag(z)")

and only z is trained. Experts are mixed by coefficients α, z' = Σ_k α_k z_k (Section 3.2), or, as ``delta``,
z' = 1 + Σ_k α_k (z_k − 1), under which α = 0 is the base model.

One adapter file holds K experts' z and a ``Mixture``: a single expert is K = 1 with α = 1, an adapted model is K
experts and what the first pass decided. So nothing downstream tells the two apart, and a one-hot α gives back exactly
the trained expert.

The same W' is evaluated in two exact ways:
- *materialised*, W' = W + U diag(σ ⊙ (z − 1)) Vᵀ written once: one product per token, for decoding. At z = 1 it is W
  to the bit.
- *factored*, y = U((σ ⊙ z) ⊙ (Vᵀ x)): the gradient of z is a sum of elementwise products and no dense ∂L/∂W' exists;
  and every row of a batch can have its own z.

Deviations
1. Parametrisation ``direct`` (z = 1 + δ, δ = 0 at the start) is the default: the adapted model is the base model at
   step 0. ``sigmoid_renormalised`` is the public code's: z = sigmoid(p), p ~ N(mean, std²), times Σσ / Σ(σ ⊙ z).
2. What is stored, mixed and moved is always the effective z, renormalisation included. (The public code mixes p.)
3. A row of α that is all zeros means the base model under ``paper``, too: z' = 0 would erase every matrix.
"""

import hashlib
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
from pipeline.model.forward.adapters import Adapter, Attachment, Factors
from pipeline.model.forward.base import layer_of
from pipeline.model.forward.linear import Linear

CONDITION = 1e4  # σ₁/σᵣ up to which the squares of singular values give float32's precision


class Targets(Section, at="svf"):
    """What an expert scales.

    modules: last name parts of the linear modules. layers: of the decoder, whose modules are scaled: their indices, or
    a share of all, spread evenly (0.5: every second one; the paper halves the layers of its largest model and does
    not say which). None: all of them. parametrisation: see Deviations. init_mean, init_std: of p, used by
    ``sigmoid_renormalised`` only.
    """

    modules: tuple[str, ...] = Field(min_length=1)
    layers: tuple[int, ...] | float | None = None
    parametrisation: Literal["direct", "sigmoid_renormalised"]
    init_mean: float
    init_std: float


class Mixing(Section, at="mixing"):
    """How experts are mixed. seed: of the experts that are mixed. mix: see ``core.types.Mixture``."""

    seed: int
    mix: Literal["paper", "delta"]


def in_layers(names: Sequence[str], layers: Sequence[int] | float | None) -> list[str]:
    """Those of some modules that stand in chosen decoder layers: see ``Targets.layers``."""
    if layers is None:
        return list(names)
    there = {layer_of(name) for name in names}
    if isinstance(layers, int | float):
        # Layer l is chosen where l · share passes a whole number: which ones does not hang on how many there are
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
    """U (out, r), σ (r,) descending, Vᵀ (r, in) of W (out, in): float32, each right to its rounding.

    Computed in float64: LAPACK's float32 decomposition misses W by some 40 times its rounding, which a factored model
    would differ by from the materialised one. The eigenvectors of the smaller of WᵀW and WWᵀ are as fast as that
    (measured on 576 × 1536), and lose (σ₁/σᵣ)² of float64's 16 digits: enough is left up to CONDITION.
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
    """From what is trained to what scales σ. parameter, sigma: (r,). Differentiable."""
    if parametrisation == "direct":
        return 1 + parameter
    z = torch.sigmoid(parameter)
    return z * (sigma.sum() / (sigma * z).sum())


def mix_z(z: Tensor, coefficients: Tensor, mix: str) -> Tensor:
    """z' of every row. z: (experts, r); coefficients: (rows, experts). Returns (rows, r); rows of zeros give ones."""
    if mix == "delta":
        return 1 + coefficients @ (z - 1)
    # A one-hot row must give back its expert to the bit: 1·z plus exact zeros does.
    mixed = coefficients @ z
    return torch.where((coefficients == 0).all(1, keepdim=True), torch.ones_like(mixed), mixed)


def materialised(weight: Tensor, factors: tuple[Tensor, Tensor, Tensor], z: Tensor) -> Tensor:
    """W' = W + U diag(σ ⊙ (z − 1)) Vᵀ in W's dtype, summed in float32; exactly W at z = 1.

    The product is taken in W's dtype: the change is small against W, so that its rounding is small against the rounding
    of W' itself.
    """
    u, sigma, vt = (factor.to(weight.device) for factor in factors)
    if bool((z == 1).all()):
        return weight.clone()
    scaled = u * (sigma * (z.to(weight.device) - 1))
    return torch.addmm(weight, scaled.to(weight.dtype), vt.to(weight.dtype))


class _Factored(torch.autograd.Function):
    """U(s ⊙ (Vᵀ x)) + bias, one node of the graph. ∂L/∂s = Σ over tokens of (Vᵀ x) ⊙ (Uᵀ ∂L/∂y), summed in float32.

    What the input's gradient needs, Uᵀ ∂L/∂y, is what the gradient of s needs: no product is computed for s alone, and
    no dense ∂L/∂W' exists.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, scale: Tensor, u: Tensor, vt: Tensor, bias: Tensor | None) -> Tensor:
        components = nn.functional.linear(hidden, vt)
        cast = scale.to(components.dtype)
        ctx.save_for_backward(components, cast, u, vt)
        return nn.functional.linear(components * cast, u, bias)

    @staticmethod
    def backward(ctx, outer: Tensor):
        components, cast, u, vt = ctx.saved_tensors
        inner = outer @ u
        scale_gradient = (inner * components).flatten(0, -2).sum(0, dtype=torch.float32)
        hidden_gradient = inner.mul_(cast) @ vt if ctx.needs_input_grad[0] else None
        return hidden_gradient, scale_gradient, None, None, None


class _FactoredLinear:
    """y = U((σ ⊙ z) ⊙ (Vᵀ x)) + bias in place of a linear module's forward; z is one vector, (r,)."""

    def __init__(self, module: nn.Linear, factors: tuple[Tensor, Tensor, Tensor], scale: Tensor) -> None:
        u, _, vt = factors
        self.u, self.vt = u.to(module.weight), vt.to(module.weight)
        self.bias, self.scale = module.bias, scale

    def __call__(self, hidden: Tensor) -> Tensor:
        return _Factored.apply(hidden, self.scale, self.u, self.vt, self.bias)


class _RowLinear:
    """The same with one z per row of the batch; ``scales`` is (rows of the job, r), in the weights' dtype."""

    def __init__(self, module: nn.Linear, factors: tuple[Tensor, Tensor, Tensor], scales: Tensor, rows: "_Rows"):
        u, _, vt = factors
        self.out, self.into = Linear(u.to(module.weight), module.bias), Linear(vt.to(module.weight))
        self.scales, self.rows = scales.to(module.weight), rows

    def __call__(self, hidden: Tensor) -> Tensor:
        components = self.into(hidden)
        components.mul_(self.scales.index_select(0, self.rows.current)[:, None])
        return self.out(components)


class _Rows(Attachment):
    """Which row of the job each row of the batch is."""

    current: LongTensor

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = groups

    def alike(self, rows: LongTensor) -> list[int]:
        return [self._groups[row] for row in rows.tolist()]

    def begin(self, rows: LongTensor, prompt_mask: Tensor | None) -> None:
        self.current = rows


class _PromptRows(_Rows):
    """Rows looked up by the ids of the prompts they were made for."""

    def __init__(self, groups: Sequence[int], ids: Sequence[str]) -> None:
        super().__init__(groups)
        self._places = {id_: place for place, id_ in enumerate(ids)}

    def rows(self, ids: Sequence[str]) -> list[int]:
        missing = [id_ for id_ in ids if id_ not in self._places]
        if missing:
            raise UserError(
                f"expected a mixture for every prompt, got none for {len(missing)} of {len(ids)}, e.g. '{missing[0]}'; "
                "run the stage that adapts to this task again"
            )
        return [self._places[id_] for id_ in ids]


def _equal_rows(tensors: Sequence[Tensor]) -> list[int]:
    """A number for each row of the job: rows that have the same z in every matrix have the same one."""
    numbers: dict[bytes, int] = {}
    groups = []
    for row in range(len(tensors[0])):
        whole = torch.cat([vectors[row] for vectors in tensors]).cpu().numpy().tobytes()
        groups.append(numbers.setdefault(hashlib.blake2b(whole).digest(), len(numbers)))
    return groups


@contextmanager
def _replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """An instance attribute hides the class's ``forward``; deleting it leaves the module as it was."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _replaced_weight(module: nn.Linear, weight: Tensor) -> Iterator[None]:
    original = module.weight
    module.weight = nn.Parameter(weight, requires_grad=False)
    try:
        yield
    finally:
        module.weight = original


@contextmanager
def materialised_weights(model: nn.Module, factors: Factors, z: Mapping[str, Tensor]) -> Iterator[Attachment]:
    """The model with W' written in place of every W. z: module name → (r,)."""
    with ExitStack() as stack:
        for name, vector in z.items():
            module = model.get_submodule(name)
            stack.enter_context(_replaced_weight(module, materialised(module.weight, factors[name], vector)))
        yield Attachment()


@contextmanager
def row_scaled(
    model: nn.Module, factors: Factors, z: Mapping[str, Tensor], ids: Sequence[str] = ()
) -> Iterator[Attachment]:
    """The model with one z per row of the job. z: module name → (rows, r). ids: the prompts the rows are for."""
    groups = _equal_rows(list(z.values()))
    rows = _PromptRows(groups, ids) if ids else _Rows(groups)
    with ExitStack() as stack:
        for name, vectors in z.items():
            module = model.get_submodule(name)
            scales = vectors.to(module.weight.device) * factors[name][1].to(module.weight.device)
            stack.enter_context(_replaced_forward(module, _RowLinear(module, factors[name], scales, rows)))
        yield rows


@contextmanager
def population(model: nn.Module, factors: Factors, adapter: "SvfAdapter", candidates: Tensor) -> Iterator[Attachment]:
    """The model with one mixture of the adapter's experts per row: candidates (rows, layers, experts)."""
    z = {
        name: mix_z(experts, candidates[:, layer_of(name)], adapter.mixture.mix)
        for name, experts in adapter.experts.items()
    }
    with row_scaled(model, factors, z) as attachment:
        yield attachment


class SvfAdapter:
    """K experts and how they are mixed.

    experts: module name → z of every expert, (K, r), float32. mixture: see ``core.types.Mixture``; a ``layer`` axis
    has one row per decoder layer of the base model.
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
        # float64 keeps the coefficients as they were found: float32 would change them on every load
        coefficients = torch.tensor(self.mixture.coefficients, dtype=torch.float64)
        return {"mixture.coefficients": coefficients, **{f"z.{name}": z for name, z in self.experts.items()}}

    def z(self, name: str) -> Tensor:
        """The mixed z of a module: (rows, r), where rows is 1 unless every prompt has its own mixture."""
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
    one = Mixture(experts=(name,), axis="all", coefficients=((1.0,),), mix="paper")
    return SvfAdapter({module: vector[None].clone() for module, vector in z.items()}, one)


def stack_experts(adapters: Sequence[Adapter], names: Sequence[str], mix: Literal["paper", "delta"]) -> SvfAdapter:
    """Several single experts as one adapter with uniform coefficients, to be ``mixed_by`` a strategy."""
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
    """What is trained: one flat float32 vector of all matrices' parameters, (Σ r,)."""

    def __init__(self, factors: Factors, targets: Targets, generator: torch.Generator) -> None:
        self.factors, self.targets = factors, targets
        named = [name for name in factors.modules if name.rpartition(".")[2] in targets.modules]
        self.modules = in_layers(named, targets.layers)
        if not self.modules:
            raise UserError(
                f"expected factors of {', '.join(targets.modules)} in {factors.path}; run 'dvc repro factorize'"
            )
        sizes = [len(factors[name][1]) for name in self.modules]
        start = torch.zeros(sum(sizes))
        if targets.parametrisation == "sigmoid_renormalised":
            start.normal_(targets.init_mean, targets.init_std, generator=generator)
        self.flat = nn.Parameter(start)
        self.sizes = sizes
        self._scaled: dict[str, _FactoredLinear] = {}

    def parameters(self) -> list[nn.Parameter]:
        return [self.flat]

    def state(self) -> dict[str, Tensor]:
        return {"flat": self.flat.detach()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.flat.copy_(state["flat"])

    def z(self) -> dict[str, Tensor]:
        """Module name → effective z, (r,); differentiable with respect to the trained vector."""
        pieces = self.flat.split(self.sizes)
        return {
            name: effective_z(piece, self.factors[name][1].to(piece.device), self.targets.parametrisation)
            for name, piece in zip(self.modules, pieces, strict=True)
        }

    def adapter(self, name: str) -> SvfAdapter:
        """The expert as trained so far."""
        return single({module: z.detach() for module, z in self.z().items()}, name)

    @contextmanager
    def sampling(self, model: nn.Module) -> Iterator[Attachment]:
        """Attached for decoding: materialised."""
        with torch.no_grad():
            z = self.z()
        with materialised_weights(model, self.factors, z) as attachment:
            yield attachment

    def retract(self) -> None:
        """z is free."""

    def extra_loss(self) -> None:
        """z is trained on the answers alone."""

    @contextmanager
    def learning(self, model: nn.Module) -> Iterator[Attachment]:
        """Attached for forward and backward passes: factored. Graphs of several passes add up in ``flat.grad``."""
        with ExitStack() as stack:
            for name in self.modules:
                module = model.get_submodule(name)
                if name not in self._scaled:  # the factors are cast to the weights' dtype once, not every step
                    self._scaled[name] = _FactoredLinear(module, self.factors[name], self.factors[name][1])
                stack.enter_context(_replaced_forward(module, self._scaled[name]))
            self._rescale()
            yield _Rescaled(self)

    def _rescale(self) -> None:
        """Compute with z as it is now."""
        for name, z in self.z().items():
            self._scaled[name].scale = z * self.factors[name][1].to(z.device)


class _Rescaled(Attachment):
    """Makes z of what is trained anew for every pass: it has changed since the last one, whose graph is gone."""

    def __init__(self, learner: SvfLearner) -> None:
        self._learner = learner

    def begin(self, rows: LongTensor, prompt_mask: Tensor | None) -> None:
        self._learner._rescale()


Settings = Targets  # as the other methods call theirs


def learner(model: nn.Module, settings: Targets, *, factors: Factors | None, generator: torch.Generator) -> SvfLearner:
    """What a trainer needs."""
    if factors is None:
        raise UserError(
            "params.yaml: expected SVF among 'experts' or 'ablations', whose stages read the base model's singular "
            "values, got it among 'baselines'; move the entry"
        )
    return SvfLearner(factors, settings, generator)
