"""Decompose the matrices of a base model that experts scale: W = U diag(σ) Vᵀ, with factors in float32.

On a CPU each matrix has a thread of its own. LAPACK's threads bring little, and with another number of them results are
rounded otherwise. Factors are written as they come: beside the model, the memory holds those of a matrix for each
thread, and of one more.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool

import torch
from torch import Tensor, nn

from pipeline.core.progress import progress, show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.core.streaming import stream_tensors
from pipeline.methods.svf import Targets, decompose, in_layers
from pipeline.model.forward.base import Compute, linear_modules, load_base, prepare_process


def run(*, model: In, compute: Compute, targets: Targets, factors: Out) -> dict[str, float]:
    """Decompose ``model``; returns how many matrices and singular values there are, and the largest error."""
    prepare_process(compute)
    with step("load the base model"):
        # float32 whatever the run computes in: the factors are of the weights as they were published
        # On the CPU even where there is a GPU, which holds a matrix at a time.
        base = load_base(model, compute.model_copy(update={"dtype": "float32", "device": "cpu", "gpus": 1}))
        names = in_layers(linear_modules(base.model, targets.modules), targets.layers)
    error, components = 0.0, 0

    def factored() -> Iterator[tuple[str, Tensor]]:
        nonlocal error, components
        ordered = sorted(names)  # as a file of tensors has them
        weights = [base.model.get_submodule(name).weight for name in ordered]
        decomposed = zip(ordered, weights, _decomposed(weights, compute), strict=True)
        for name, weight, (u, sigma, vt) in progress("decompose", decomposed, len(names)):
            error = max(error, float(((u * sigma) @ vt - weight).abs().max()))
            components += len(sigma)
            yield from {f"{name}.sigma": sigma, f"{name}.u": u, f"{name}.vt": vt}.items()

    with step("decompose"):
        stream_tensors(factors, factored(), {"base": model.parent.name, "modules": list(targets.modules)})
    show_table("factors", [{"matrices": len(names), "singular values": components, "largest error": error}])
    return {"matrices": len(names), "singular_values": components, "largest_error": error}


def _decomposed(weights: Sequence[nn.Parameter], compute: Compute) -> Iterator[tuple[Tensor, ...]]:
    """The factors of each matrix, in order."""
    if compute.device != "cpu":
        yield from map(partial(_on, compute.device), weights)
        return
    threads = torch.get_num_threads()
    room = threading.Semaphore(threads + 1)  # for factors that are computed, or wait to be taken

    def one(weight: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        room.acquire()
        return decompose(weight)

    with ThreadPool(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for factors in pool.imap(one, weights):
            yield factors
            room.release()


def _on(device: str, weight: Tensor) -> tuple[Tensor, ...]:
    """The factors of a matrix, computed on a device, which keeps nothing of it."""
    return tuple(factor.cpu() for factor in decompose(weight.to(device)))


if __name__ == "__main__":
    main()
