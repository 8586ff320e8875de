"""What an adapter changed, per layer and module: a table for a person."""

from collections.abc import Iterator
from typing import Any

import torch

from pipeline.methods.csreft import CsReft
from pipeline.methods.lora import Lora
from pipeline.methods.reft import Reft
from pipeline.methods.svf import SvfAdapter
from pipeline.model.forward.adapters import Adapter, Factors, natural_order
from pipeline.model.forward.base import layer_of


def changes(adapter: Adapter, factors: Factors, top: int) -> list[dict[str, Any]]:
    """One row per layer and module, in depth order. top: how many components to name, the most changed first.

    change: ‖W' − W‖ / ‖W‖ in the Frobenius norm. Of an edit of hidden states, which has no W: ‖W − R‖ / ‖R‖ of its
    own matrices, how far the edited subspace's target is from leaving it as it is.
    """
    return list(_rows(adapter, factors, top))


def _rows(adapter: Adapter, factors: Factors, top: int) -> Iterator[dict[str, Any]]:
    if isinstance(adapter, SvfAdapter):
        for module in sorted(adapter.experts, key=natural_order):
            z, sigma = adapter.z(module)[0], factors[module][1]
            # ‖U diag(σ(z − 1)) Vᵀ‖ is the norm of σ(z − 1), and ‖W‖ that of σ.
            moved = sigma * (z - 1)
            most = moved.abs().topk(min(top, len(moved))).indices.tolist()
            yield {
                "layer": layer_of(module),
                "module": module.rpartition(".")[2],
                "change": float(moved.norm() / sigma.norm()),
                "z from": f"{float(z.min()):.3f}",
                "z to": f"{float(z.max()):.3f}",
                "most changed components": ", ".join(f"σ{number} ×{float(z[number]):.3f}" for number in most),
            }
    elif isinstance(adapter, Lora):
        config = adapter.config()
        for module in sorted(adapter.pairs, key=natural_order):
            a, b = adapter.pairs[module]
            added = config["lora_alpha"] / config["r"] * (b.detach() @ a.detach())
            sigma = torch.linalg.svdvals(added)[: min(top, config["r"])].tolist()
            yield {
                "layer": layer_of(module),
                "module": module.rpartition(".")[2],
                "change": float(added.norm() / factors[module][1].norm()),
                "largest singular values of the sum": ", ".join(f"{value:.3f}" for value in sigma),
            }
    elif isinstance(adapter, Reft | CsReft):
        for place, layer in enumerate(adapter.layers):
            rotation, weight = adapter.rotation[place].detach(), adapter.weight[place].detach()
            yield {
                "layer": layer,
                "module": "output",
                "change": float((weight - rotation).norm() / rotation.norm()),
                "norm of b": float(adapter.bias[place].detach().norm()),
            }
