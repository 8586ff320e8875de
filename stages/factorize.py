"""Decompose the matrices of a base model that experts scale: W = U diag(σ) Vᵀ, with factors in float32.

On a CPU each matrix has a thread of its own. LAPACK's threads bring little, and with another number of them results are
rounded otherwise.
"""

from functools import partial
from multiprocessing.pool import ThreadPool

import torch
from torch import Tensor

from pipeline.core.artifacts import write_tensors
from pipeline.core.progress import progress, show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import Targets, decompose, in_layers
from pipeline.model.forward.base import Compute, linear_modules, load_base, prepare_process


def run(*, model: In, compute: Compute, targets: Targets, factors: Out) -> dict[str, float]:
    """Decompose ``model``; returns how many matrices and singular values there are, and the largest error."""
    prepare_process(compute)
    with step("load the base model"):
        # float32 whatever the run computes in: the factors are of the weights as they were published
        # On the CPU even where there is a GPU: that one holds a matrix at a time, and not 71 GB of factors of 8B.
        base = load_base(model, compute.model_copy(update={"dtype": "float32", "device": "cpu", "gpus": 1}))
        names = in_layers(linear_modules(base.model, targets.modules), targets.layers)
    tensors: dict[str, Tensor] = {}
    error = 0.0
    weights = [base.model.get_submodule(name).weight for name in names]
    side_by_side = torch.get_num_threads() if compute.device == "cpu" else 1
    with step("decompose"), ThreadPool(side_by_side, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        made = pool.imap(decompose, weights) if compute.device == "cpu" else map(partial(_on, compute.device), weights)
        decomposed = zip(names, weights, made, strict=True)
        for name, weight, (u, sigma, vt) in progress("decompose", decomposed, len(names)):
            error = max(error, float(((u * sigma) @ vt - weight).abs().max()))
            tensors |= {f"{name}.u": u, f"{name}.sigma": sigma, f"{name}.vt": vt}
    with step("write the factors"):
        write_tensors(factors, tensors, {"base": model.parent.name, "modules": list(targets.modules)})
    components = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(".sigma"))
    show_table("factors", [{"matrices": len(names), "singular values": components, "largest error": error}])
    return {"matrices": len(names), "singular_values": components, "largest_error": error}


def _on(device: str, weight: Tensor) -> tuple[Tensor, ...]:
    """The factors of a matrix, computed on a device, which keeps nothing of it."""
    return tuple(factor.cpu() for factor in decompose(weight.to(device)))


if __name__ == "__main__":
    main()
