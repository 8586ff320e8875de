"""The share of a base model's spectrum, and of its experts' changes, that lies in the top singular components."""

import pandas as pd

from pipeline.core.artifacts import atomic
from pipeline.core.errors import UserError
from pipeline.core.progress import show_table, step
from pipeline.core.stage import In, Out, main
from pipeline.evaluation.spectra import FRACTIONS, top_shares
from pipeline.methods.svf import SvfAdapter
from pipeline.model.forward.adapters import Factors, load_adapter
from pipeline.model.forward.base import layer_of


def run(*, factors: In, experts: list[In], shares: Out) -> dict[str, float]:
    """Write a line for each matrix, each fraction of its rank, and each of σ and the experts."""
    with step("read the factors and the experts"):
        decomposed = Factors(factors)
        adapters = {path.stem: load_adapter(path)[0] for path in experts}
    lines = []
    with step("sum"):
        for name in decomposed.modules:
            changes = {}
            for expert, adapter in adapters.items():
                if not isinstance(adapter, SvfAdapter):
                    raise UserError(f"expected SVF experts, got '{expert}' of kind '{adapter.kind}'; name expert files")
                if name in adapter.experts:
                    changes[expert] = adapter.z(name)[0]
            for of, held in top_shares(decomposed[name][1], changes).items():
                place = {"of": of, "module": name.rpartition(".")[2], "layer": layer_of(name)}
                lines += [{**place, "top": top, "share": share} for top, share in zip(FRACTIONS, held, strict=True)]
    frame = pd.DataFrame(lines)
    with atomic(shares) as temporary:
        frame.to_parquet(temporary, index=False)
    half = frame[frame["top"] == 0.5].groupby("of", sort=False)["share"].mean()
    metrics = {f"top half, {of}": float(share) for of, share in half.items()}
    show_table("share held by the first half of the components", [metrics])
    return metrics


if __name__ == "__main__":
    main()
