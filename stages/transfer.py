"""Move an SVF expert to another base model: component by component, or, as a control, in a shuffled order."""

import torch

from pipeline.adaptation.transfer import ORDERS, moved, shuffled
from pipeline.core.artifacts import read_tensors
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import SvfAdapter, single
from pipeline.model.forward.adapters import Factors, load_adapter, save_adapter


def run(*, order: str, seed: int, name: str, expert: In, factors: In, transferred: Out) -> dict[str, object]:
    """Move ``expert`` to the model that ``factors`` are of.

    order: ``ordered`` or ``shuffled``. seed: of the shuffling. name: what the moved expert is called in mixtures.
    """
    if order not in ORDERS:
        raise UserError(f"params.yaml: expected an order out of {', '.join(ORDERS)}, got '{order}'; correct it")
    with step("read the expert and the shapes"):
        adapter, provenance = load_adapter(expert)
        if not (isinstance(adapter, SvfAdapter) and adapter.mixture.axis == "all"):
            raise UserError(f"expected a single SVF expert in {expert}, got another adapter; pass an expert file")
        z = {name: adapter.z(name)[0] for name in adapter.experts}
        decomposed = Factors(factors)
        ranks = {name: len(decomposed[name][1]) for name in decomposed.modules}
    with step("move"):
        new = moved(z, ranks)
        if order == "shuffled":
            new = shuffled(new, torch.Generator().manual_seed(seed))
    # Where names or sizes of modules differ, the other model has another shape.
    resampled = sum(name not in z or len(vector) != len(z[name]) for name, vector in new.items())
    facts = {
        "method": "svf",
        "task": provenance["task"],
        "seed": seed,
        "base": read_tensors(factors)[1]["base"],
        "parameters": sum(vector.numel() for vector in new.values()),
        "order": order,
        "expert_of": provenance["base"],
        "resampled": resampled,
    }
    save_adapter(transferred, single(new, name), facts)
    show_table("transferred", [facts])
    return {"order": order, "matrices": len(new), "resampled": resampled}


if __name__ == "__main__":
    main()
