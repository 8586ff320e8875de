"""Decompose the targeted matrices of the base model: W = U diag(σ) Vᵀ, factors in float32."""

from torch import Tensor

from pipeline.core.artifacts import write_tensors
from pipeline.core.models import Compute, linear_modules, load_base, prepare_process
from pipeline.core.progress import progress, show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import Targets, decompose, in_layers


def run(*, model: In, compute: Compute, targets: Targets, factors: Out) -> dict[str, float]:
    prepare_process(compute)
    with step("load the base model"):
        # float32 whatever the run computes in: the factors are of the weights as they were published
        base = load_base(model, compute.model_copy(update={"dtype": "float32"}))
        names = in_layers(linear_modules(base.model, targets.modules), targets.layers)
    tensors: dict[str, Tensor] = {}
    error = 0.0
    with step("decompose"):
        for name in progress("decompose", names, len(names)):
            weight = base.model.get_submodule(name).weight
            u, sigma, vt = decompose(weight)
            error = max(error, float(((u * sigma) @ vt - weight).abs().max()))
            tensors |= {f"{name}.u": u, f"{name}.sigma": sigma, f"{name}.vt": vt}
    with step("write the factors"):
        write_tensors(factors, tensors, {"base": model.parent.name, "modules": list(targets.modules)})
    components = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(".sigma"))
    show_table("factors", [{"matrices": len(names), "singular values": components, "largest error": error}])
    return {"matrices": len(names), "singular_values": components, "largest_error": error}


if __name__ == "__main__":
    main()
