"""Dividing the examples of a task among its splits so that no prompt stands in two of them."""

import hashlib
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from pipeline.core.errors import UserError
from pipeline.core.types import Example

FILLED = ("test", "few_shot", "validation", "train")  # in this order: changing a later size leaves earlier splits as is
PATIENCE = 20_000  # repeated examples in a row after which a generator is taken to be exhausted


def normalised_text(text: str) -> str:
    """Lower case, letters and digits only, single spaces."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def normalised(example: Example) -> str:
    """The text that two equal prompts share: the last user turn, or a benchmark's bare ``question``, normalised.

    Where it is asked about pictures, theirs are the same, too.
    """
    text = normalised_text(example.meta.get("question") or example.messages[-1]["content"])
    return " ".join([text, *(hashlib.sha256(picture.encode()).hexdigest() for picture in example.images)])


def fill(examples: Iterable[Example], sizes: Mapping[str, int]) -> dict[str, list[Example]]:
    """Splits of the asked sizes, filled from the distinct ``examples`` in the order of ``FILLED``."""
    splits: dict[str, list[Example]] = {split: [] for split in FILLED}
    seen: set[str] = set()
    repeated = 0
    stream = iter(examples)
    for split in FILLED:
        while len(splits[split]) < sizes[split]:
            example = next(stream, None)
            if example is None or repeated > PATIENCE:
                raise UserError(
                    f"expected {sum(sizes.values())} different examples, got {len(seen)} from the task; "
                    "ask for fewer in params.yaml or widen the task's options"
                )
            text = normalised(example)
            repeated = repeated + 1 if text in seen else 0
            if text not in seen:
                seen.add(text)
                splits[split].append(example)
    return splits


def text_digest(text: str) -> str:
    """A short digest of a normalised text, by which ``divide`` knows held-out texts."""
    return hashlib.sha256(normalised_text(text).encode()).hexdigest()[:16]


def divide(
    native: Mapping[str, Sequence[Example]],
    sizes: Mapping[str, int | Literal["all", "rest"]],
    seed: int,
    held_out: Collection[str],
) -> tuple[dict[str, list[Example]], dict[str, int]]:
    """Our four splits of a benchmark's own two, and how many rows were dropped, by reason.

    native: the benchmark's ``train`` and ``test``. sizes: of our splits. held_out: digests of other tasks' test texts.
    The few-shot prompts are drawn from the test split and leave it. Training and validation are the halves of the train
    split, without repetitions and without any text of the test split or of ``held_out``; where ``train`` is the
    ``rest``, training has all that validation leaves. Each split is then cut to its size, and keeps the order of its
    source.
    """
    draw = random.Random(f"splits {seed}")
    tested = _shuffled(native["test"], draw)
    few_shot = tested[: _count(sizes["few_shot"], tested, "few_shot")]
    shown = {normalised(example) for _, example in few_shot}
    rest = [pair for pair in tested[len(few_shot) :] if normalised(pair[1]) not in shown]
    forbidden = {text_digest(normalised(example)) for example in native["test"]} | set(held_out)
    seen: set[str] = set()
    dropped = {"contaminated": 0, "repeated": 0, "same_as_few_shot": len(tested) - len(few_shot) - len(rest)}
    clean = []
    for pair in _shuffled(native["train"], draw):
        text = normalised(pair[1])
        if text_digest(text) in forbidden:
            dropped["contaminated"] += 1
        elif text in seen:
            dropped["repeated"] += 1
        else:
            seen.add(text)
            clean.append(pair)
    kept = len(clean) // 2
    if sizes["train"] == "rest":
        kept = len(clean) - _count(sizes["validation"], clean, "validation")
    pools = {"test": rest, "few_shot": few_shot, "validation": clean[kept:], "train": clean[:kept]}
    cut = {split: pools[split][: _count(sizes[split], pools[split], split)] for split in FILLED}
    return {split: [example for _, example in sorted(pairs, key=_place)] for split, pairs in cut.items()}, dropped


def of_each_subset(examples: Sequence[Example], each: int, seed: int) -> list[Example]:
    """``each`` examples, drawn at random, of every subset that the examples' meta names; they keep their order."""
    draw = random.Random(f"each {seed}")
    subsets: dict[str, list[tuple[int, Example]]] = {}
    for pair in _shuffled(examples, draw):
        subsets.setdefault(str(pair[1].meta.get("subset")), []).append(pair)
    scarce = min(subsets, key=lambda name: len(subsets[name]))
    if each > len(subsets[scarce]):
        raise UserError(
            f"expected {each} test examples of every subset, got {len(subsets[scarce])} of '{scarce}'; ask for "
            "fewer in params.yaml, or for 'all'"
        )
    return [example for _, example in sorted((pair for pool in subsets.values() for pair in pool[:each]), key=_place)]


def _place(pair: tuple[int, Example]) -> int:
    return pair[0]


def _shuffled(examples: Sequence[Example], draw: random.Random) -> list[tuple[int, Example]]:
    """Examples with their places in the source, in random order."""
    pairs = list(enumerate(examples))
    draw.shuffle(pairs)
    return pairs


def _count(size: int | Literal["all", "rest"], pool: Sequence[object], split: str) -> int:
    if isinstance(size, str):
        return len(pool)
    if size > len(pool):
        raise UserError(
            f"expected {size} examples for the split '{split}', got {len(pool)} from the benchmark; "
            "ask for fewer in params.yaml, or for 'all'"
        )
    return size
