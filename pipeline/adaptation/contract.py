"""The contract of a search for α on a few prompts: what a strategy is given and what it returns.

A strategy is a module of ``pipeline.adaptation`` with ``search(judge, *, experts, layers, settings, seed,
checkpoints) -> Found``; it knows neither the model nor the task, only how good a candidate is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.core.config import Section

# Candidates (C, layers, experts) to accuracy (C,) in [0, 1] and mean log-likelihood of the references (C,), nats.
# The accuracy of a candidate outside the ``elites`` best may be a lower bound of it.
Judge = Callable[[Tensor], tuple[Tensor, Tensor]]


class FewShot(Section, at="few_shot"):
    """The search. shots: held-out prompts. population: candidates per generation. deviation: the starting s."""

    shots: int
    configurations: tuple[str, ...]
    population: int
    elites: int
    generations: int
    deviation: float
    smoothing: float


@dataclass
class Found:
    """The best candidate so far: alpha (layers or 1, experts); its accuracy and mean log-likelihood; the trace."""

    alpha: Tensor
    configuration: str = ""
    accuracy: float = -1.0
    log_likelihood: float = -math.inf
    prompts: int = 0
    trace: list[dict[str, Any]] = field(default_factory=list)


def ranking(accuracy: Tensor, log_likelihood: Tensor) -> list[int]:
    """Candidates, best first: by accuracy, ties by log-likelihood, then by number."""
    return sorted(range(len(accuracy)), key=lambda i: (-float(accuracy[i]), -float(log_likelihood[i]), i))
