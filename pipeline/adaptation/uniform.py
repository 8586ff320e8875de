"""All experts in equal parts, α_k = 1/K: what mixing brings without a search.

Transformer² (arXiv 2501.06252) sets it beside the search on MATH. Its one candidate is judged all the same, so that
its accuracy on the prompts stands beside what the searchers found.
"""

import torch

from pipeline.adaptation.contract import FewShot, Found, Judge
from pipeline.core.checkpoints import Checkpoints


def search(judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints) -> Found:
    """Judge the uniform α and return it."""
    alpha = torch.full((1, experts), 1 / experts)
    accuracy, log_likelihood = judge(alpha.expand(1, layers, -1))
    found = Found(alpha, "uniform", float(accuracy[0]), float(log_likelihood[0]), settings.shots)
    row = {"configuration": "uniform", "iteration": 0, "prompts": found.prompts}
    found.trace = [{**row, "best_accuracy": found.accuracy, "best_log_likelihood": found.log_likelihood}]
    return found
