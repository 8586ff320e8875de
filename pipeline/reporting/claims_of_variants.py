"""What the paper claims in its tables of variants, as data: Transformer² (arXiv 2501.06252), Tables 5 and 8 to 10.

A claim sets rows of a table beside others, and expects them to be better. It is made only where a run has
such a pair: a table that is not there, or is there without the row in question, says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# The search on so many prompts; the usual one has ten.
SHOTS = {3: "few_shot_3", 5: "few_shot_5", 10: "few_shot", 20: "few_shot_20"}


@dataclass(frozen=True)
class Claim:
    """says: what is claimed. pairs: the row it is claimed of, and the row it is compared with, as often as needed.

    open: nothing is claimed, and the comparison alone is told.
    """

    says: str
    pairs: tuple[tuple[str, str], ...]
    open: bool = False


MOVED = (
    Claim(
        "experts moved from another model improve on the model they are moved to (there on two of three tasks)",
        (("ordered", "base"),),
    ),
    Claim("moved experts do better in the order of the components than shuffled", (("ordered", "shuffled"),)),
)
CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "table5": (
        *MOVED,
        Claim("a search over both models' experts improves on the base model", (("cross", "base"),)),
    ),
    "table8": (
        Claim(
            "a search for α does better than IA3 trained on the same prompts",
            tuple((row, f"ia3_{steps}_steps_{n}") for steps in (100, 1000) for n, row in SHOTS.items()),
        ),
        Claim("three prompts are enough to improve on the base model", (("few_shot_3", "base"),)),
    ),
    "table9": (
        Claim(
            "Moved experts against the model they are moved to, in the paper ahead on one of their own tasks",
            (("ordered", "base"),),
            open=True,
        ),
        MOVED[1],
    ),
    "table10": (
        Claim("a light search, on few prompts, improves on the base model", (("few_shot_light", "base"),)),
        Claim("A light search against the full one", (("few_shot_light", "few_shot"),), open=True),
    ),
    "searchers": (
        Claim("a search does better than experts in equal parts", (("few_shot", "uniform"),)),
        Claim(
            "Other searchers against CEM (the table of searches has the prompts that each ran)",
            (("cma_es", "few_shot"), ("shooting", "few_shot")),
            open=True,
        ),
    ),
}


def claims_for(key: str) -> tuple[Claim, ...]:
    """A table's claims. One with a suffix, ``table9_resampled``, is of the kind before it."""
    return CLAIMS.get(key, CLAIMS.get(key.partition("_")[0], ()))


def rivals_for(key: str) -> list[str]:
    """The rows, other than the base model's, that a table's claims compare with."""
    return list(dict.fromkeys(rival for claim in claims_for(key) for _, rival in claim.pairs if rival != "base"))
