"""Take the one expert that does best on the held-out prompts: no mixing, K candidates.

This is how the table of unseen tasks gets its row "best LoRA checkpoint" (Transformer², arXiv 2501.06252, Table 2).

Deviations
1. The paper does not say on what its best checkpoint was chosen; here it is never the reported prompts.
"""

import torch

from pipeline.adaptation.contract import FewShot, Found, Judge, ranking
from pipeline.core.checkpoints import Checkpoints


def search(judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints) -> Found:
    """Judge the K one-hot candidates and return the best."""
    one_hot = torch.eye(experts)[:, None]
    accuracy, log_likelihood = judge(one_hot.expand(-1, layers, -1))
    top = ranking(accuracy, log_likelihood)[0]
    found = Found(
        alpha=one_hot[top],
        configuration="one expert",
        accuracy=float(accuracy[top]),
        log_likelihood=float(log_likelihood[top]),
        prompts=experts * settings.shots,
    )
    found.trace = [
        {
            "configuration": "one expert",
            "iteration": 0,
            "best_accuracy": found.accuracy,
            "best_log_likelihood": found.log_likelihood,
            "prompts": found.prompts,
        }
    ]
    return found
