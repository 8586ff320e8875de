"""A prefix that several prompts share is computed once: a system message, worked turns.

Where a causal model reads ``[b | x]`` and ``[b | y]``, keys and values of ``b`` are the same in both. So the tokens of
``b`` are computed in a pass of their own, and the passes over the rests look at what it left. One length serves all
prompts of a job; prompts of different tasks have different prefixes of that length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SHORTEST = 4  # tokens: a shorter prefix is not worth a pass of its own


@dataclass(frozen=True)
class Prefixes:
    """length: tokens that are shared. groups: the places of the prompts, those with the same first tokens together."""

    length: int
    groups: list[list[int]]


def common_prefixes(prompts: Sequence[Sequence[int]], alike: Sequence[int] | None = None, *, keep: int = 1) -> Prefixes:
    """The prefixes that save most tokens; of length 0 where nothing is saved.

    alike: a number for each prompt; only prompts with the same number can share (None: none can, see
        ``Attachment.alike``).
    keep: tokens that stay behind the prefix in each prompt, at least.

    Of the prompts ``a b c d e f``, ``a b c d e g`` and ``a b c d h h``, all share four tokens, which saves 2 × 4; two
    share five, which saves 1 × 5. So the length is 4, and there is one group.
    """
    if alike is None or not prompts:
        return Prefixes(0, [])
    order = sorted(range(len(prompts)), key=lambda place: (alike[place], tuple(prompts[place])))
    limit = min(len(prompt) for prompt in prompts) - keep
    # Sorted, each prompt shares its longest prefix with a neighbour. common[i]: tokens shared with the one before.
    common = [0]
    for before, place in pairwise(order):
        equal = 0
        if alike[before] == alike[place]:
            while equal < limit and prompts[before][equal] == prompts[place][equal]:
                equal += 1
        common.append(equal)
    saved = {length: length * sum(equal >= length for equal in common[1:]) for length in set(common)}
    length = max(saved, key=lambda length: (saved[length], -length))
    if length < SHORTEST:
        return Prefixes(0, [])
    groups: list[list[int]] = []
    for place, equal in zip(order, common, strict=True):
        if equal < length:
            groups.append([])
        groups[-1].append(place)
    return Prefixes(length, groups)
