"""What all searchers have in common: how a candidate is formed, and what has been judged so far.

A configuration says what is searched: ``shared`` or ``per-layer`` α, ``normalised`` (Σ_k α_k = 1) or ``free``. The
outcome is the best candidate ever judged, whatever the searcher makes of it.

Deviation of ``normalised`` from Transformer² (arXiv 2501.06252): it projects onto Σα = 1 by an equal shift of all
coefficients, because dividing by the sum has a pole at 0.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.adaptation.contract import FewShot, Judge, Outcome, ranking
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError

CONFIGURATIONS = tuple(f"{scope}-{norm}" for scope in ("shared", "per-layer") for norm in ("normalised", "free"))


class Record:
    """Has candidates judged, a generation at a time, and keeps the best one and the trace in ``outcome``."""

    def __init__(self, judge: Judge, *, layers: int, settings: FewShot, checkpoints: Checkpoints) -> None:
        unknown = set(settings.configurations) - set(CONFIGURATIONS)
        if unknown or not settings.configurations:
            raise UserError(
                f"params.yaml: expected 'configurations' in few_shot, or in the row's own search, out of "
                f"{', '.join(CONFIGURATIONS)}, got {', '.join(sorted(unknown)) or 'none'}; correct them"
            )
        if not 1 < settings.elites <= settings.population:
            raise UserError(
                f"params.yaml: expected 'elites' in few_shot, or in the row's own search, from 2 to the population, "
                f"{settings.population}, got {settings.elites}; correct it"
            )
        self._judge, self._layers, self._settings, self._checkpoints = judge, layers, settings, checkpoints
        self.outcome = Outcome(alpha=torch.empty(0))

    def configurations(self) -> Iterator[tuple[int, str, int]]:
        """The number of each configuration, its name, and the rows of α that it searches: one, or one a layer."""
        for number, name in enumerate(self._settings.configurations):
            yield number, name, self._layers if name.startswith("per-layer") else 1

    def judged(self, configuration: str, iteration: int, proposed: Tensor) -> tuple[Tensor, list[int]]:
        """Have a generation judged: as it was proposed, or, ``normalised``, at the nearest α with Σα = 1.

        proposed: (C, rows, experts). Returns the candidates as they were judged, and their numbers, best first. A
        generation that was judged before this process began is read from its checkpoint.
        """
        candidates = proposed
        if configuration.endswith("normalised"):
            candidates = proposed + (1 - proposed.sum(-1, keepdim=True)) / proposed.shape[-1]
        name = f"{configuration}-{iteration}"
        saved = self._checkpoints.load(name)
        if saved is None:
            accuracy, log_likelihood = self._judge(candidates.expand(-1, self._layers, -1))
            self._checkpoints.save(name, {"accuracy": accuracy, "log_likelihood": log_likelihood}, {})
        else:
            accuracy, log_likelihood = saved[0]["accuracy"], saved[0]["log_likelihood"]
        order, best = ranking(accuracy, log_likelihood), self.outcome
        top = order[0]
        best.prompts += len(candidates) * self._settings.shots
        if (float(accuracy[top]), float(log_likelihood[top])) > (best.accuracy, best.log_likelihood):
            best.alpha, best.configuration = candidates[top].clone(), configuration
            best.accuracy, best.log_likelihood = float(accuracy[top]), float(log_likelihood[top])
        best.trace.append(
            {
                "configuration": configuration,
                "iteration": iteration,
                "best_accuracy": float(accuracy[top]),
                "elites_accuracy": float(accuracy[order[: self._settings.elites]].mean()),
                "best_log_likelihood": float(log_likelihood[top]),
                "accuracies": accuracy.tolist(),
                "prompts": best.prompts,
            }
        )
        return candidates, order
