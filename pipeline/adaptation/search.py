"""Adapt to an unseen task on a few of its prompts: search for the mixture of experts that answers them best.

It joins what the parts do not know of each other: a strategy of ``pipeline.adaptation`` proposes coefficients, the
base model with the experts so mixed answers the prompts, and the task's scorer judges the answers.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.adaptation.candidates import judge
from pipeline.adaptation.contract import FewShot
from pipeline.core.artifacts import read_examples, write_jsonl
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import show_table, step
from pipeline.core.types import Mixture
from pipeline.methods.svf import Mixing, SvfAdapter, population, stack_experts
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import Adapter, Factors, load_adapter, save_adapter
from pipeline.model.forward.base import Compute, decoder_layers, load_base, prepare_process


@dataclass(frozen=True)
class Files:
    """model, factors, experts, shots: read. adapted, trace: written, the adapter found and how it was."""

    model: Path
    factors: Path
    experts: Sequence[Path]
    shots: Path
    adapted: Path
    trace: Path


def search(
    files: Files,
    *,
    strategy: str,
    task: str,
    seed: int,
    compute: Compute,
    mixing: Mixing,
    settings: FewShot,
    decoding: Decoding,
    checkpoints: Checkpoints,
) -> Mapping[str, Any]:
    """Search by ``strategy``, a module of ``pipeline.adaptation``, and write what was found; returns its metrics."""
    prepare_process(compute, seed)
    find = importlib.import_module(f"pipeline.adaptation.{strategy}").search
    score = importlib.import_module(f"pipeline.tasks.{task}").score
    with step("load the base model and the experts"):
        base, decomposed = load_base(files.model, compute), Factors(files.factors)
        loaded = [load_adapter(path) for path in files.experts]
        adapters, names = [adapter for adapter, _ in loaded], [path.stem for path in files.experts]
        examples = read_examples(files.shots)[: settings.shots]

    def judged(attachment, candidates: int) -> tuple[Tensor, Tensor]:
        best = min(settings.elites, candidates)
        return judge(
            base,
            attachment,
            examples,
            candidates=candidates,
            best=best,
            score=score,
            decoding=decoding,
            compute=compute,
        )

    def together(candidates: Tensor) -> tuple[Tensor, Tensor]:
        assert stacked is not None
        with population(base.model, decomposed, stacked, candidates) as attachment:
            return judged(attachment, len(candidates))

    def one_by_one(candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Whole experts only: candidates are one-hot."""
        parts = []
        for number in candidates[:, 0].argmax(1).tolist():
            with adapters[number].attached(base.model, decomposed) as attachment:
                parts.append(judged(attachment, 1))
        return torch.cat([accuracy for accuracy, _ in parts]), torch.cat([likelihood for _, likelihood in parts])

    mixable = all(isinstance(adapter, SvfAdapter) for adapter in adapters)
    stacked = stack_experts(adapters, names, mixing.mix) if mixable else None
    with step(f"search by {strategy} on {len(examples)} prompts"):
        found = find(
            together if mixable else one_by_one,
            experts=len(names),
            layers=len(decoder_layers(base.model)),
            settings=settings,
            seed=seed,
            checkpoints=checkpoints,
        )
    alpha = tuple(tuple(row) for row in found.alpha.double().tolist())
    if stacked is not None:
        axis: Literal["layer", "all"] = "layer" if len(alpha) > 1 else "all"
        adapter: Adapter = stacked.mixed_by(Mixture(tuple(names), axis, alpha, mixing.mix))
        parameters = found.alpha.numel()
    else:
        chosen = int(found.alpha[0].argmax())
        adapter, parameters = adapters[chosen], loaded[chosen][1]["parameters"]
    provenance = {
        "method": strategy,
        "task": task,
        "seed": seed,
        "base": files.model.parent.name,
        "parameters": parameters,
        "experts": names,
        "alpha": alpha,
        "configuration": found.configuration,
    }
    save_adapter(files.adapted, adapter, provenance)
    rows = [{**row, "chosen": row["configuration"] == found.configuration} for row in found.trace]
    final = {
        "final": True,
        "configuration": found.configuration,
        "experts": names,
        "alpha": alpha,
        "normalised": found.configuration.endswith("normalised"),
        "accuracy": found.accuracy,
    }
    write_jsonl(files.trace, [*rows, final])
    show_table("search", rows)
    return {"configuration": found.configuration, "shots_accuracy": found.accuracy, "prompts": found.prompts}
