"""CMA-ES in place of CEM (Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772), by the library ``cma``.

CEM keeps one deviation for each coefficient; CMA-ES adapts the whole covariance of what it draws, and its step size.
Transformer² (arXiv 2501.06252, Section 5) names better searchers as future work.

Of the settings, ``population`` is λ, candidates in a generation, ``elites`` is μ, how many of them move the mean, and
``deviation`` is the first step size; ``smoothing`` has no effect.

CMA-ES needs only an order of its candidates, so it is given their places in the ranking: by accuracy, ties by the
log-likelihood of the reference answers. Negative weights are off (``CMA_active``), because the accuracy of candidates
outside the elites may be a lower bound, and their order means nothing.

Deviations
1. The very first candidate is the uniform α, as for the other searchers.
"""

import numpy as np
import torch

from pipeline.adaptation.contract import FewShot, Judge, Outcome
from pipeline.adaptation.record import Record
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import bar


def search(
    judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints
) -> Outcome:
    """Run every configuration and return the best candidate of all."""
    import cma  # here: only a run that asks for this searcher needs the library

    record = Record(judge, layers=layers, settings=settings, checkpoints=checkpoints)
    with bar("search α", settings.generations * len(settings.configurations)) as drawn:
        for number, configuration, rows in record.configurations():
            start = np.full(rows * experts, 1 / experts)
            draw = np.random.default_rng([seed, number])
            options = {
                "popsize": settings.population,
                "CMA_mu": settings.elites,
                "CMA_active": False,
                "seed": np.nan,  # the global generator is left alone
                "randn": lambda *shape, draw=draw: draw.standard_normal(shape),
                "verbose": -9,
            }
            strategy = cma.CMAEvolutionStrategy(start, settings.deviation, options)
            for generation in range(settings.generations):
                asked = strategy.ask()
                if generation == 0:
                    asked[0] = start
                proposed = torch.from_numpy(np.stack(asked)).float().view(-1, rows, experts)
                _, order = record.judged(configuration, generation, proposed)
                strategy.tell(asked, [float(order.index(candidate)) for candidate in range(len(asked))])
                drawn.advance(1, f"best {record.outcome.accuracy:.2f}")
    return record.outcome
