"""Train one SVF expert on one task by REINFORCE."""

import importlib
import sys

import torch

from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import show_markdown, step
from pipeline.core.stage import In, Out, main
from pipeline.methods.svf import SvfLearner, Targets
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training.reinforce import Reinforce, rewarding, train, written


class Training(Reinforce, at="{recipe}"):
    """How: ``reinforce``, or a section like it; experts of other base models may have one of their own."""


def run(
    *,
    recipe: str,
    task: str,
    seed: int,
    model: In,
    factors: In,
    train_split: In,
    validation_split: In,
    compute: Compute,
    targets: Targets,
    settings: Training,
    decoding: Decoding,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    """The metric ``rewarded`` is the share of all sampled answers that were."""
    prepare_process(compute, seed)
    score = importlib.import_module(f"pipeline.tasks.{task}").score
    with step("load the base model"):
        base = load_base(model, compute)
    with step("train z by REINFORCE"):
        learner, rows = train(
            base,
            lambda: SvfLearner(Factors(factors), targets, torch.Generator().manual_seed(seed)),
            train_examples=read_examples(train_split),
            validation_examples=read_examples(validation_split),
            reward=rewarding(score),
            settings=settings,
            compute=compute,
            draw=written(
                base,
                compute=compute,
                max_new_tokens=decoding.max_new_tokens,
                samples=settings.samples,
                temperature=settings.temperature,
            ),
            advantage=settings.advantage,
            seed=seed,
            checkpoints=checkpoints,
        )
    provenance = {
        "method": "svf",
        "task": task,
        "seed": seed,
        "base": model.parent.name,
        "parameters": learner.flat.numel(),
    }
    metrics = save_trained(learner.adapter(f"{task}-{seed}"), rows, path=expert, curve=curve, provenance=provenance)
    means = [row["train"] for row in rows if row["step"] > 0]  # of rewards that are 1 or -1
    rewarded = sum((mean + 1) / 2 for mean in means) / len(means)
    if rewarded == 0:
        warning = (
            f"expected some answer to '{task}' to be rewarded, got none in {len(means)} steps; the expert changes "
            "nothing: give the task easier prompts or longer answers, or look at its scorer"
        )
        print(f"warning: {warning}", file=sys.stderr)
        show_markdown("warning", warning)
    return {**metrics, "rewarded": rewarded}


if __name__ == "__main__":
    main()
