"""Few-shot adaptation by the cross-entropy method (Transformer², arXiv 2501.06252, Section 3.2, C).

Find α such that the mix of experts answers a handful of held-out prompts of the new task best. A generation draws
candidates α ~ N(μ, diag(s²)), has all of them judged, and moves μ and s to the mean and deviation of the elites.

    candidates: (population, layers or 1, experts)

Elites are ranked by accuracy on the prompts, ties by the mean log-likelihood of the reference answers. The search is
run for every configuration in the settings, ``per-layer`` or ``shared`` α, ``normalised`` (Σ_k α_k = 1) or ``free``;
the configuration and the candidate are chosen on these prompts, never on the reported ones.

Deviations
1. Each generation also judges μ itself, and what is returned is the best candidate ever judged.
2. ``normalised`` projects onto Σα = 1 by an equal shift of all coefficients; dividing by the sum has a pole at 0.
3. The starting mean is uniform, 1/K.
4. s is mixed with its previous value (``smoothing``): with few elites of a small population it would collapse at once.
"""

import torch
from torch import Tensor

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.core.search import FewShot, Found, Judge, ranking

CONFIGURATIONS = tuple(f"{scope}-{norm}" for scope in ("shared", "per-layer") for norm in ("normalised", "free"))


def normalised(alpha: Tensor) -> Tensor:
    """The nearest α with Σ_k α_k = 1."""
    return alpha + (1 - alpha.sum(-1, keepdim=True)) / alpha.shape[-1]


def search(judge: Judge, *, experts: int, layers: int, settings: FewShot, seed: int, checkpoints: Checkpoints) -> Found:
    """Run every configuration and return the best candidate of all."""
    unknown = set(settings.configurations) - set(CONFIGURATIONS)
    if unknown or not settings.configurations:
        raise UserError(
            f"params.yaml: expected few_shot.configurations out of {', '.join(CONFIGURATIONS)}, "
            f"got {', '.join(sorted(unknown)) or 'none'}; correct them"
        )
    if not 1 < settings.elites <= settings.population:
        raise UserError(
            f"params.yaml: expected few_shot.elites between 2 and few_shot.population ({settings.population}), "
            f"got {settings.elites}; correct it"
        )
    best = Found(alpha=torch.empty(0))
    with bar("search α", settings.generations * len(settings.configurations)) as drawn:
        for number, configuration in enumerate(settings.configurations):
            scope, _, norm = configuration.rpartition("-")
            rows = layers if scope == "per-layer" else 1
            mean, deviation = torch.full((rows, experts), 1 / experts), torch.full((rows, experts), settings.deviation)
            for generation in range(settings.generations):
                saved = checkpoints.load(f"{configuration}-{generation}")
                if saved is None:
                    generator = torch.Generator().manual_seed((seed * 1_009 + number) * 1_009 + generation)
                    noise = torch.randn(settings.population - 1, rows, experts, generator=generator)
                    candidates = torch.cat([mean[None], mean + deviation * noise])
                    if norm == "normalised":
                        candidates = normalised(candidates)
                    accuracy, log_likelihood = judge(candidates.expand(-1, layers, -1) if rows == 1 else candidates)
                    state = {"candidates": candidates, "accuracy": accuracy, "log_likelihood": log_likelihood}
                    checkpoints.save(f"{configuration}-{generation}", state, {})
                else:
                    state = saved[0]
                    candidates, accuracy, log_likelihood = (
                        state[key] for key in ("candidates", "accuracy", "log_likelihood")
                    )
                order = ranking(accuracy, log_likelihood)
                elites = candidates[order[: settings.elites]]
                mean = elites.mean(0)
                deviation = settings.smoothing * deviation + (1 - settings.smoothing) * elites.std(0)
                top = order[0]
                best.prompts += settings.population * settings.shots
                if (float(accuracy[top]), float(log_likelihood[top])) > (best.accuracy, best.log_likelihood):
                    best.alpha, best.configuration = candidates[top].clone(), configuration
                    best.accuracy, best.log_likelihood = float(accuracy[top]), float(log_likelihood[top])
                best.trace.append(
                    {
                        "configuration": configuration,
                        "iteration": generation,
                        "best_accuracy": float(accuracy[top]),
                        "elites_accuracy": float(accuracy[order[: settings.elites]].mean()),
                        "best_log_likelihood": float(log_likelihood[top]),
                        "prompts": best.prompts,
                    }
                )
                drawn.advance(1, f"best {best.accuracy:.2f}")
    return best
