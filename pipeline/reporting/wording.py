"""How a person reads the report's numbers: percent, points, thousands apart, and what the texts have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

READING = (
    "Accuracy in percent, greedy decoding, with its 95 % bootstrap interval and the number of examples; Δ is the "
    "paired difference from the base model in points, with its interval, and better, worse or undecided is what that "
    "interval says. No such verdict is given where validation kept the untrained adapter (not trained), and where more "
    "than 10 % of the answers of either side are cut or unread, or a rule without a model does as well (not "
    "interpretable). 'Of read and finished' is the same difference on the prompts that both sides' answers were read "
    "and finished of. Unparsed: no answer could be read; truncated: cut at the token limit. Numbers marked 'paper' are "
    "of another model on other benchmarks."
)

WARNING = "⚠"  # marks what is not shown to beat the best rule without a model
WITHOUT_MODEL = "best rule without a model"
WHOLE = ("n", "seeds", "read_n")  # counts, among the numbers of metrics.json


def percent(fraction: float, places: int = 1) -> str:
    """A fraction in percent, without the sign."""
    return f"{100 * fraction:.{places}f}"


def signed(fraction: float) -> str:
    """A difference of fractions in points, with its sign; what rounds to nothing has none."""
    return f"{100 * fraction:+z.1f}".replace("-", "−").replace("+0.0", "0.0")


def hundredths(value: float) -> float | None:
    """A number × 100, rounded to two places; None where there is none."""
    return None if pd.isna(value) else round(100 * value, 2)


def cell_text(value: str | int | float | None) -> str:
    """What stands in a cell of a table: thousands apart, fractions to four digits."""
    if value is None:
        return "–"
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return value if isinstance(value, str) else f"{round(value):,}".replace(",", "\u202f")


def rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as they stand in metrics.json: counts whole, everything else to six places."""
    return {key: int(value) if key in WHOLE else round(float(value), 6) for key, value in numbers.items()}


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def joined(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"
