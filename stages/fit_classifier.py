"""Train the classification expert z^c: an SVF expert that names the category of a prompt."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from pipeline.adaptation.dispatch import Dispatch, question, said
from pipeline.core.artifacts import read_examples
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.progress import step
from pipeline.core.stage import In, Out, main
from pipeline.core.types import Example
from pipeline.methods.svf import SvfLearner, Targets
from pipeline.model.decoding.batch import Answer
from pipeline.model.forward.adapters import Factors, save_trained
from pipeline.model.forward.base import Compute, load_base, prepare_process
from pipeline.training import reinforce
from pipeline.training.loop import Training
from pipeline.training.rollouts import chosen
from pipeline.training.variants import provenance


class Classifier(reinforce.Reinforce, at="classifier"):
    """How the classification expert is trained.

    examples_per_task: prompts of each trained task.
    samples, advantage: mean nothing here, where the reward of all answers is known; they come with ``like: reinforce``.
    """

    examples_per_task: int


def run(
    *,
    seed: int,
    model: In,
    factors: In,
    train: list[In],
    validation: list[In],
    compute: Compute,
    targets: Targets,
    settings: Classifier,
    dispatch: Dispatch,
    expert: Out,
    curve: Out,
    checkpoints: Checkpoints,
) -> dict[str, float]:
    def begin() -> SvfLearner:
        return SvfLearner(decomposed, targets, torch.Generator().manual_seed(seed))

    def reward(examples: Sequence[Example], answers: Sequence[Answer]) -> list[float]:
        return [
            1.0 if said(base.text(answer.ids), dispatch) == example.meta["domain"] else -1.0
            for example, answer in zip(examples, answers, strict=True)
        ]

    prepare_process(compute, seed)
    with step("load the base model"):
        base = load_base(model, compute)
        decomposed = Factors(factors)
        questions = reinforce.Questions(
            asked(train, settings.examples_per_task, dispatch),
            asked(validation, settings.examples_per_task, dispatch)[: settings.validation_examples],
            chosen(
                base,
                "sum",
                compute=compute,
                temperature=settings.temperature,
                penalised=any(settings.kl_coefficients),
                ended=True,
            ),
            reward,
        )
    with step("train z^c by REINFORCE"):
        training = Training(settings, seed, checkpoints)
        learner, rows = reinforce.train(base, begin, questions, compute=compute, training=training)
    about = provenance(learner, method="svf", seed=seed, model=model, task="classification")
    return save_trained(learner.adapter("classifier"), rows, path=expert, curve=curve, provenance=about)


def asked(splits: Iterable[Path], count: int, dispatch: Dispatch) -> list[Example]:
    """Questions about the first ``count`` prompts of every task, one task after the other in turn."""
    tasks = [read_examples(path)[:count] for path in splits]
    turns = [example for turn in zip(*tasks, strict=True) for example in turn]
    return [question(example, dispatch, dispatch.names[example.meta["domain"]]) for example in turns]


if __name__ == "__main__":
    main()
