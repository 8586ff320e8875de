"""The contract of a search for α on a few prompts: what a strategy is given and what it returns.

A strategy is a module of ``pipeline.adaptation`` with

    search(judge, *, experts, layers, settings, seed, checkpoints) -> Outcome

It knows neither the model nor the task, only how good a candidate is. experts: K, how many are mixed. layers: of the
decoder.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from pipeline.core.config import Section, settings, sources

# Candidates (C, layers, experts) to their accuracy (C,) in [0, 1] and the mean log-likelihood of a token of the
# reference answers (C,) in nats. The accuracy of a candidate outside the ``elites`` best may be a lower bound of it.
Judge = Callable[[Tensor], tuple[Tensor, Tensor]]


class FewShot(Section, at="few_shot"):
    """The settings of a search.

    shots: held-out prompts that candidates are judged on. configurations: what is searched, see ``record``.
    population: candidates in a generation. elites: how many of them the next generation is drawn from.
    deviation: standard deviation of α in the first generation. smoothing: share of the last deviation that is kept.
    """

    shots: int
    configurations: tuple[str, ...]
    population: int
    elites: int
    generations: int
    deviation: float
    smoothing: float


class Search(FewShot):
    """The settings of one row's search: ``rows.<row>.search`` in params.yaml, or ``few_shot`` where the row has none.

    The stage has the argument ``row``.
    """

    @classmethod
    def place(cls, params: Mapping[str, Any], row: str) -> str:
        """Where in params.yaml the search of ``row`` stands."""
        own = (params.get("rows") or {}).get(row) or {}
        return f"rows.{row}.search" if "search" in own else cls.at

    @classmethod
    def places(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> tuple[str, ...]:
        return sources(params, cls.place(params, arguments["row"]))

    @classmethod
    def read(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> Self:
        where = cls.place(params, arguments["row"])
        return cls.parse(settings(params, where), where)


@dataclass
class Outcome:
    """What a search has come to so far: its best candidate, and the trace.

    alpha: the candidate, (layers or 1, experts). configuration: what was searched when it came up.
    accuracy, log_likelihood: as the judge gave them. prompts: how many were answered, over all candidates.
    trace: a row for each generation.
    """

    alpha: Tensor
    configuration: str = ""
    accuracy: float = -1.0
    log_likelihood: float = -math.inf
    prompts: int = 0
    trace: list[dict[str, Any]] = field(default_factory=list)


def ranking(accuracy: Tensor, log_likelihood: Tensor) -> list[int]:
    """The numbers of the candidates, best first: by accuracy, ties by log-likelihood, then by number."""
    return sorted(range(len(accuracy)), key=lambda i: (-float(accuracy[i]), -float(log_likelihood[i]), i))
