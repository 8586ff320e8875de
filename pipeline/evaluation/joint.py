"""Several differences as one: the effect of a claim that is about several pairs of rows and several tasks.

Pairs that are compared on the same examples are resampled together, so that the interval of their mean knows that what
makes an example hard is hard for all of them. Tasks have examples of their own and are resampled apart. Seeds and
limits are as in ``pipeline.evaluation.intervals``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.intervals import Estimate, Resampling, interval, resampled_means

NORMAL = 1.959964  # the 97.5 % quantile of the normal distribution


class Effect(NamedTuple):
    """A number with its 95 % interval, of n examples; what is counted and not drawn has neither interval nor n."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def joint(tasks: Sequence[Sequence[np.ndarray]], resampling: Resampling) -> Estimate:
    """The mean over tasks of the mean over pairs.

    tasks: for each task the differences of each pair on the same examples in the same order, as
    ``pipeline.evaluation.intervals.paired`` returns them: (n,), or (n, seeds, other seeds).
    """
    means = [
        np.mean([resampled_means(values, resampling, stream) for values in pairs], axis=0)
        for stream, pairs in enumerate(tasks)
    ]
    mean = float(np.mean([np.mean([values.mean() for values in pairs]) for pairs in tasks]))
    return interval(mean, np.mean(means, axis=0), sum(len(pairs[0]) for pairs in tasks))


def independent(effects: Sequence[Effect]) -> Effect:
    """The mean of effects that share no example, of which only the intervals are known.

    Each half-width of the mean's interval is the root of the sum of the squares of theirs, over their number.
    """
    mean = sum(effect.mean for effect in effects) / len(effects)
    if any(effect.low is None or effect.high is None for effect in effects):
        return Effect(mean)
    down = math.hypot(*(effect.mean - effect.low for effect in effects if effect.low is not None)) / len(effects)
    up = math.hypot(*(effect.high - effect.mean for effect in effects if effect.high is not None)) / len(effects)
    return Effect(mean, mean - down, mean + up, sum(effect.n or 0 for effect in effects))


def share(count: int, n: int) -> Effect:
    """The share count / n of n trials, with Wilson's interval (doi 10.1080/01621459.1927.10502953)."""
    square = NORMAL**2
    middle = (count + square / 2) / (n + square)
    half = NORMAL / (n + square) * math.sqrt(count * (n - count) / n + square / 4)
    return Effect(count / n, middle - half, middle + half, n)


def difference_of_shares(after: Effect, before: Effect) -> Effect:
    """after − before, two shares, by Newcombe's interval of independent ones (Statistics in Medicine 17, 1998).

    It is his method 10. Where the trials are the same, it is wider than necessary.
    """
    mean = after.mean - before.mean
    if after.low is None or after.high is None or before.low is None or before.high is None:
        return Effect(mean)
    low = mean - math.hypot(after.mean - after.low, before.high - before.mean)
    high = mean + math.hypot(after.high - after.mean, before.mean - before.low)
    return Effect(mean, low, high, after.n)
