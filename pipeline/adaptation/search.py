"""The experts that a search mixes or chooses from: how its candidates are judged, and the adapter that comes of it.

It joins what the parts do not know of each other: a strategy of ``pipeline.adaptation`` proposes coefficients α, the
base model with the experts so mixed answers the prompts, and the task's scorer judges the answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from pipeline.adaptation.candidates import Exam, judge
from pipeline.adaptation.contract import Judge
from pipeline.core.types import Mixture
from pipeline.methods.svf import SvfAdapter, population, stack_experts
from pipeline.model.forward.adapters import Adapter, Factors, load_adapter
from pipeline.model.forward.base import Adapted


@dataclass(frozen=True)
class Pool:
    """K experts.

    names, adapters, parameters: of each expert; ``parameters`` counts what was trained.
    stacked: all of them as one adapter that can be mixed; None where they are not SVF experts, and one can only be
        chosen.
    """

    names: tuple[str, ...]
    adapters: tuple[Adapter, ...]
    parameters: tuple[int, ...]
    stacked: SvfAdapter | None

    @classmethod
    def read(cls, paths: Sequence[Path], mix: Literal["paper", "delta"]) -> Self:
        """The experts in these files, named by them. mix: see ``Mixture``."""
        loaded = [load_adapter(path) for path in paths]
        names, adapters = [path.stem for path in paths], [adapter for adapter, _ in loaded]
        mixable = all(isinstance(adapter, SvfAdapter) for adapter in adapters)
        stacked = stack_experts(adapters, names, mix) if mixable else None
        return cls(tuple(names), tuple(adapters), tuple(facts["parameters"] for _, facts in loaded), stacked)

    def judge(self, bare: Adapted, factors: Factors, exam: Exam, *, elites: int) -> Judge:
        """How good candidates are, each an α for these experts. bare: the base model. elites: how many matter."""
        stacked = self.stacked

        def together(candidates: Tensor) -> tuple[Tensor, Tensor]:
            assert stacked is not None
            with population(bare.base.model, factors, stacked, candidates) as attachment:
                count = len(candidates)
                return judge(replace(bare, attachment=attachment), exam, candidates=count, best=min(elites, count))

        def one_by_one(candidates: Tensor) -> tuple[Tensor, Tensor]:
            """Whole experts only: candidates are one-hot."""
            accuracies, likelihoods = [], []
            for number in candidates[:, 0].argmax(1).tolist():
                with self.adapters[number].attached(bare.base.model, factors) as attachment:
                    accuracy, likelihood = judge(replace(bare, attachment=attachment), exam, candidates=1, best=1)
                accuracies.append(accuracy)
                likelihoods.append(likelihood)
            return torch.cat(accuracies), torch.cat(likelihoods)

        return one_by_one if stacked is None else together

    def adapter(self, alpha: Tensor) -> tuple[Adapter, int]:
        """The experts mixed by ``alpha``, (layers or 1, experts), or the expert it chooses; and its parameters.

        Of a mixture, the parameters are the coefficients.
        """
        if self.stacked is None:
            chosen = int(alpha[0].argmax())
            return self.adapters[chosen], self.parameters[chosen]
        axis: Literal["layer", "all"] = "layer" if len(alpha) > 1 else "all"
        coefficients = tuple(tuple(row) for row in alpha.double().tolist())
        mixture = Mixture(self.names, axis, coefficients, self.stacked.mixture.mix)
        return self.stacked.mixed_by(mixture), alpha.numel()
