"""The one expert that does best on the held-out prompts: K candidates, and no mixing.

The row "best LoRA checkpoint" of the table of unseen tasks is made so (Transformer², arXiv 2501.06252, Table 2).

Deviations
1. The paper does not say on which prompts its best checkpoint was chosen; here, never on the reported ones.
"""

import torch

from pipeline.adaptation.contract import FewShot, Judge, Outcome, ranking
from pipeline.core.checkpoints import Checkpoints


def search(
    judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints
) -> Outcome:
    """Judge the K one-hot candidates and return the best."""
    one_hot = torch.eye(experts)[:, None]
    accuracy, log_likelihood = judge(one_hot.expand(-1, layers, -1))
    top = ranking(accuracy, log_likelihood)[0]
    outcome = Outcome(
        alpha=one_hot[top],
        configuration="one expert",
        accuracy=float(accuracy[top]),
        log_likelihood=float(log_likelihood[top]),
        prompts=experts * settings.shots,
    )
    row = {"configuration": outcome.configuration, "iteration": 0, "prompts": outcome.prompts}
    outcome.trace = [{**row, "best_accuracy": outcome.accuracy, "best_log_likelihood": outcome.log_likelihood}]
    return outcome
