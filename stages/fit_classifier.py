"""Train the classification expert z^c: an SVF expert that names the category of a prompt."""

from collections.abc import Sequence

import torch

from pipeline.adaptation.dispatch import Dispatch, question, said
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import Example
from pipeline.methods.svf import SvfLearner, Targets
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training.reinforce import Optimisation, chosen_among, train


class Classifier(Optimisation, at="classifier"):
    """How the classification expert is trained: on ``examples_per_task`` prompts of each trained task."""

    examples_per_task: int


def run(
    *,
    seed: int,
    model: In,
    factors: In,
    train_splits: list[In],
    validation_splits: list[In],
    compute: Compute,
    targets: Targets,
    settings: Classifier,
    dispatch: Dispatch,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    prepare_process(compute, seed)

    def asked(splits: Sequence, count: int) -> list[Example]:
        """Questions about the prompts of every task, one task after the other in turn."""
        tasks = [read_examples(path)[:count] for path in splits]
        turns = [example for turn in zip(*tasks, strict=True) for example in turn]
        return [question(example, dispatch, dispatch.names[example.meta["domain"]]) for example in turns]

    def reward(examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        return [
            1.0 if said(answer, dispatch) == example.meta["domain"] else -1.0
            for example, answer in zip(examples, answers, strict=True)
        ]

    with step("load the base model"):
        base = load_base(model, compute)
    with step("train z^c by REINFORCE"):
        learner, rows = train(
            base,
            lambda: SvfLearner(Factors(factors), targets, torch.Generator().manual_seed(seed)),
            train_examples=asked(train_splits, settings.examples_per_task),
            validation_examples=asked(validation_splits, settings.examples_per_task),
            reward=reward,
            settings=settings,
            compute=compute,
            draw=chosen_among(
                base,
                [base.answer_ids(name) for name in dispatch.names.values()],
                compute=compute,
                temperature=settings.temperature,
            ),
            advantage="exact",
            seed=seed,
            checkpoints=checkpoints,
        )
    provenance = {
        "method": "svf",
        "task": "classification",
        "seed": seed,
        "base": model.parent.name,
        "parameters": learner.flat.numel(),
    }
    return save_trained(learner.adapter("classifier"), rows, path=expert, curve=curve, provenance=provenance)


if __name__ == "__main__":
    main()
