"""All experts in equal parts, α_k = 1/K: what mixing brings without a search.

Transformer² (arXiv 2501.06252) compares it with the search on MATH. The one candidate is judged like any other, so that
its accuracy on the prompts can be compared with the searchers'.
"""

import torch

from pipeline.adaptation.contract import FewShot, Judge, Outcome
from pipeline.core.checkpoints import Checkpoints


def search(
    judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints
) -> Outcome:
    """Judge the uniform α and return it."""
    alpha = torch.full((1, experts), 1 / experts)
    accuracy, log_likelihood = judge(alpha.expand(1, layers, -1))
    outcome = Outcome(alpha, "uniform", float(accuracy[0]), float(log_likelihood[0]), settings.shots)
    row = {"configuration": "uniform", "iteration": 0, "prompts": outcome.prompts}
    outcome.trace = [{**row, "best_accuracy": outcome.accuracy, "best_log_likelihood": outcome.log_likelihood}]
    return outcome
