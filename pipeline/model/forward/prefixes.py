"""What several prompts begin with alike is computed once: a system message, worked turns.

Where a causal model reads ``[b | x]`` and ``[b | y]``, keys and values of ``b`` are the same in both. So the tokens of
``b`` are computed in a pass of their own, and the passes over the rests look at what it left. One length serves all
prompts of a job; prompts of different tasks have different beginnings of that length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SHORTEST = 4  # tokens: a shorter common beginning is not worth a pass of its own


@dataclass(frozen=True)
class Beginnings:
    """The first ``length`` tokens of the prompts, and the places of the prompts that have them in common."""

    length: int
    groups: list[list[int]]


def common_beginnings(
    prompts: Sequence[Sequence[int]], alike: Sequence[int] | None = None, *, keep: int = 1
) -> Beginnings:
    """The beginnings that save most tokens; of length 0 where nothing is saved.

    alike: a number for each prompt; only those with the same one can share (None: nothing can, see
    ``Attachment.alike``). keep: how many tokens of each prompt stay behind its beginning, at least.
    """
    if alike is None or not prompts:
        return Beginnings(0, [])
    order = sorted(range(len(prompts)), key=lambda place: (alike[place], tuple(prompts[place])))
    limit = min(len(prompt) for prompt in prompts) - keep
    # Sorted, each prompt has its longest beginning in common with a neighbour.
    common = [0]
    for one, other in pairwise(order):
        equal = 0
        if alike[one] == alike[other]:
            while equal < limit and prompts[one][equal] == prompts[other][equal]:
                equal += 1
        common.append(equal)
    saved = {length: length * sum(equal >= length for equal in common[1:]) for length in set(common)}
    length = max(saved, key=lambda length: (saved[length], -length))
    if length < SHORTEST:
        return Beginnings(0, [])
    groups: list[list[int]] = []
    for place, equal in zip(order, common, strict=True):
        if equal < length:
            groups.append([])
        groups[-1].append(place)
    return Beginnings(length, groups)
