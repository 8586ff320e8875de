"""A variant of the search for a mixture, with settings of its own: other shots, budgets, searchers."""

from collections.abc import Mapping
from typing import Any

from pipeline.adaptation.contract import FewShot
from pipeline.adaptation.search import Files, search
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import Mixing
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.base import Compute


class Search(FewShot, at="searches.{name}.settings"):
    """The settings of this one search."""


def run(
    *,
    name: str,
    strategy: str,
    task: str,
    seed: int,
    model: In,
    factors: In,
    experts: list[In],
    shots: In,
    compute: Compute,
    mixing: Mixing,
    settings: Search,
    decoding: Decoding,
    adapted: Out,
    trace: Out,
    checkpoints: Checkpoints,
) -> Mapping[str, Any]:
    """Run the search ``name`` of params.yaml."""
    return search(
        Files(model, factors, experts, shots, adapted, trace),
        strategy=strategy,
        task=task,
        seed=seed,
        compute=compute,
        mixing=mixing,
        settings=settings,
        decoding=decoding,
        checkpoints=checkpoints,
    )


if __name__ == "__main__":
    main()
