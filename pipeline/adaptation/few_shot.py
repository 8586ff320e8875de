"""Few-shot adaptation by the cross-entropy method (Transformer², arXiv 2501.06252, Section 3.2, C).

The search looks for the α under which the mixed experts best answer a few held-out prompts of a new task. A generation
draws candidates α ~ N(μ, diag(s²)), has all of them judged, and moves μ and s to the mean and deviation of the elites.

    candidates: (population, layers or 1, experts)

Elites are the candidates of highest accuracy on the prompts, ties by the mean log-likelihood of the reference answers.
The search is run for every configuration in the settings: ``per-layer`` or ``shared`` α, ``normalised`` (Σ_k α_k = 1)
or ``free``. Configuration and candidate are chosen on these prompts, never on the reported ones.

Deviations
1. Each generation also judges μ itself, and the outcome is the best candidate ever judged.
2. The first mean is uniform, 1/K.
3. s is mixed with its last value (``smoothing``): with few elites of a small population it would collapse at once.
"""

import torch

from pipeline.adaptation.contract import FewShot, Judge, Outcome
from pipeline.adaptation.record import Record
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import bar


def search(
    judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints
) -> Outcome:
    """Run every configuration and return the best candidate of all."""
    record = Record(judge, layers=layers, settings=settings, checkpoints=checkpoints)
    with bar("search α", settings.generations * len(settings.configurations)) as drawn:
        for number, configuration, rows in record.configurations():
            mean, deviation = torch.full((rows, experts), 1 / experts), torch.full((rows, experts), settings.deviation)
            for generation in range(settings.generations):
                generator = torch.Generator().manual_seed((seed * 1_009 + number) * 1_009 + generation)
                noise = torch.randn(settings.population - 1, rows, experts, generator=generator)
                candidates, order = record.judged(
                    configuration, generation, torch.cat([mean[None], mean + deviation * noise])
                )
                elites = candidates[order[: settings.elites]]
                mean = elites.mean(0)
                deviation = settings.smoothing * deviation + (1 - settings.smoothing) * elites.std(0)
                drawn.advance(1, f"best {record.outcome.accuracy:.2f}")
    return record.outcome
