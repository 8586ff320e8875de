"""Which prompts teach: those that the untrained learner answers right at some times and wrong at others.

Where all answers to a prompt are rewarded alike, a policy gradient without a baseline of its own has nothing to learn
from them, and they cost as much as any. So a training may ask its prompts a few times before it begins, and keep those
whose answers differ in their rewards.
"""

from collections.abc import Callable, Sequence

import torch
from pydantic import Field

from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar
from pipeline.core.types import Example
from pipeline.training.rollouts import Rollout

AT_ONCE = 32  # prompts from one checkpoint to the next


class Screen(Section):
    """prompts: that are asked, from the start of the training split; each as often as in a step of the training."""

    prompts: int = Field(ge=1)


def screened(
    examples: Sequence[Example],
    ask: Callable[[Sequence[Example], torch.Generator], Sequence[Rollout]],
    *,
    prompts: int,
    seed: int,
    checkpoints: Checkpoints,
) -> list[Example]:
    """Those of the first ``prompts`` examples whose answers differ in their rewards. A killed screening goes on.

    ask: from examples and a generator to the untrained learner's judged answers.
    """
    asked = list(examples)[:prompts]
    _, meta = checkpoints.load("screen") or ({}, {"mixed": []})
    mixed: list[bool] = meta["mixed"]
    with bar("screen prompts", len(asked)) as drawn:
        drawn.advance(len(mixed))
        while len(mixed) < len(asked):
            part = asked[len(mixed) : len(mixed) + AT_ONCE]
            generator = torch.Generator().manual_seed(seed * 1_000_003 + 500_009 + len(mixed))
            mixed += [item.mixed for item in ask(part, generator)]
            checkpoints.save("screen", {}, {"mixed": mixed})
            drawn.advance(len(part))
    kept = [example for example, both in zip(asked, mixed, strict=True) if both]
    if not kept:
        raise UserError(
            f"expected a prompt that is answered right at some times, got none in {len(asked)}; give the task easier "
            "prompts, screen with more samples, or leave 'screen' out"
        )
    return kept
