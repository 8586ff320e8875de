"""Random shooting: the best of many candidates, all drawn from the distribution that the other searchers start from.

Candidates are α ~ N(1/K, deviation²) in every generation: nothing is learnt from what was judged. By how much CEM or
CMA-ES (``few_shot``, ``cma_es``) do better with as many candidates is what their learning brings. Transformer² (arXiv
2501.06252, Section 5) names better searchers as future work.

Of the settings, ``elites`` only says how many candidates of a generation are judged to the end; ``smoothing`` has no
effect.
"""

import torch

from pipeline.adaptation.contract import FewShot, Judge, Outcome
from pipeline.adaptation.record import Record
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import bar


def search(
    judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints
) -> Outcome:
    """Judge ``population`` × ``generations`` candidates of every configuration; the first one is uniform."""
    record = Record(judge, layers=layers, settings=settings, checkpoints=checkpoints)
    with bar("search α", settings.generations * len(settings.configurations)) as drawn:
        for number, configuration, rows in record.configurations():
            for generation in range(settings.generations):
                generator = torch.Generator().manual_seed((seed * 1_009 + number) * 1_009 + generation)
                noise = torch.randn(settings.population, rows, experts, generator=generator)
                if generation == 0:
                    noise[0] = 0
                record.judged(configuration, generation, 1 / experts + settings.deviation * noise)
                drawn.advance(1, f"best {record.outcome.accuracy:.2f}")
    return record.outcome
