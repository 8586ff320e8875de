"""Dividing the examples of a task among its splits so that no prompt stands in two of them."""

import re
from collections.abc import Iterable, Mapping

from pipeline.core.errors import UserError
from pipeline.core.types import Example

FILLED = ("test", "few_shot", "validation", "train")  # in this order: changing a later size leaves earlier splits as is
PATIENCE = 20_000  # examples seen already, in a row, after which a generator is held to be exhausted


def normalised(example: Example) -> str:
    """The last user turn in lower case, letters and digits only, single spaces: what tells two prompts apart."""
    return " ".join(re.findall(r"[^\W_]+", example.messages[-1]["content"].lower()))


def fill(examples: Iterable[Example], sizes: Mapping[str, int]) -> dict[str, list[Example]]:
    """Splits of the asked sizes, filled in the order ``FILLED`` from the distinct ones among ``examples``."""
    splits: dict[str, list[Example]] = {split: [] for split in FILLED}
    seen: set[str] = set()
    repeated = 0
    stream = iter(examples)
    for split in FILLED:
        while len(splits[split]) < sizes[split]:
            example = next(stream, None)
            if example is None or repeated > PATIENCE:
                raise UserError(
                    f"expected {sum(sizes.values())} different examples, the task gave only {len(seen)}; "
                    "ask for fewer in params.yaml or widen the task's options"
                )
            text = normalised(example)
            repeated = repeated + 1 if text in seen else 0
            if text not in seen:
                seen.add(text)
                splits[split].append(example)
    return splits
