"""Random shooting: the best of as many candidates as another searcher may judge, drawn from where it starts.

Candidates are α ~ N(1/K, deviation²), the same distribution in every generation: nothing is learnt from what was
judged. What CEM or CMA-ES (``few_shot``, ``cma_es``) find more at an equal budget is what their learning brings; the
paper (Transformer², arXiv 2501.06252, Section 5) names better searchers as future work.

Of the settings, ``smoothing`` is of no use here, and ``elites`` only says how many candidates are judged to the end.
"""

import torch

from pipeline.adaptation.contract import FewShot, Found, Judge
from pipeline.adaptation.record import Record
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import bar


def search(judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints) -> Found:
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
                drawn.advance(1, f"best {record.found.accuracy:.2f}")
    return record.found
