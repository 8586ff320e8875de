"""Adapt to an unseen task on a few of its prompts: search for the mixture of experts that answers them best."""

from collections.abc import Mapping
from typing import Any

from pipeline.adaptation.contract import FewShot
from pipeline.adaptation.search import Files, search
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import Mixing
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.base import Compute


def run(
    *,
    strategy: str,
    task: str,
    seed: int,
    model: In,
    factors: In,
    experts: list[In],
    shots: In,
    compute: Compute,
    mixing: Mixing,
    settings: FewShot,
    decoding: Decoding,
    adapted: Out,
    trace: Out,
    checkpoints: Checkpoints,
) -> Mapping[str, Any]:
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
