"""The prompts of a training from rewards: how they are answered, and which of them teach."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.types import Example
from pipeline.model.decoding.batch import Decoding
from pipeline.model.forward.base import Base, Compute
from pipeline.training.loop import Data
from pipeline.training.reinforce import Questions, Reinforce, Sampled, rollout
from pipeline.training.rollouts import Reward, Rollout, chosen, written
from pipeline.training.screening import Screen, screened


def questions_of(
    base: Base, data: Data, reward: Reward, *, training: Reinforce, decoding: Decoding, compute: Compute
) -> Questions:
    """Prompts that are answered while the policy is learnt as they will be answered afterwards: written, or chosen."""
    if decoding.choose_by is not None:
        penalised = any(training.kl_coefficients)
        temperature, per = training.temperature, decoding.choose_by
        draw = chosen(base, per, compute=compute, temperature=temperature, penalised=penalised)
        return Questions(data.train, data.validation, draw, reward)
    draw = written(
        base,
        compute=compute,
        max_new_tokens=decoding.limit,
        samples=training.samples,
        temperature=training.temperature,
    )
    return Questions(data.train, data.validation, draw, reward)


def teaching(
    base: Base, learner: Sampled, questions: Questions, screen: Screen, *, seed: int, checkpoints: Checkpoints
) -> Questions:
    """Those of the questions that the untrained learner answers right at some times; see ``screening``."""

    def ask(examples: Sequence[Example], generator: torch.Generator) -> list[Rollout]:
        return rollout(base, learner, examples, questions, generator=generator)

    kept = screened(questions.train, ask, prompts=screen.prompts, seed=seed, checkpoints=checkpoints)
    return replace(questions, train=kept)
