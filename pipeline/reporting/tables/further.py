"""What a run measured beside the accuracy of its answers: further metrics, likeliest choices, win rates."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.artifacts import read_json, read_jsonl
from pipeline.core.errors import UserError
from pipeline.reporting.measured import DIFFERENCES
from pipeline.reporting.papers import row_name
from pipeline.reporting.read import planned
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import hundredths, rounded

NUMBERS = ("mean", "low", "high", "n", "seeds", *DIFFERENCES)


def with_weighed(scores: pd.DataFrame, folder: Path, cells: Collection[str]) -> pd.DataFrame:
    """The scores with columns ``also.<name>`` for those cells whose choices the stage ``weigh`` has weighed."""
    frames = []
    for cell in sorted(cells):
        path = planned(folder / f"{cell}.jsonl", f"weigh@{cell}")
        frame = pd.DataFrame(read_jsonl(path)).drop(columns="log_likelihoods")
        own = set(scores.loc[scores["cell"] == cell, "id"])
        if own and own != set(frame["id"]):
            raise UserError(
                f"expected the same examples in {path} and in the scores of '{cell}', got others; run "
                f"'dvc repro weigh@{cell}'"
            )
        frames.append(frame.rename(columns=lambda name: name if name == "id" else f"also.{name}").assign(cell=cell))
    return scores.merge(pd.concat(frames), on=["cell", "id"], how="left") if frames else scores


def read_judged(folder: Path, keys: Collection[str]) -> list[dict[str, Any]]:
    """What judges preferred, as the stage ``judge`` wrote it. keys: of the stage."""
    return [read_json(planned(folder / f"{key}.json", f"judge@{key}")) for key in sorted(keys)]


def metrics_table(frame: pd.DataFrame) -> Listing:
    """Metrics beside accuracy, with their intervals and differences from the base model, in hundredths."""
    rows = []
    for line in frame.to_dict("records"):
        values = [hundredths(line[key]) for key in ("mean", "low", "high", *DIFFERENCES)]
        word = None if pd.isna(line["verdict"]) else line["verdict"]
        rows.append((line["task"], row_name(line["row"]), line["metric"], *values, word, line["n"], line["seeds"]))
    columns = ("task", "method", "metric", "value", "low", "high", "Δ", "Δ low", "Δ high", "verdict", "n", "seeds")
    note = (
        "Further metrics of the same prompts, in hundredths: shares in percent, F1 and correlations × 100. Low and "
        "high bound the 95 % bootstrap interval; Δ is the paired difference from the base model. A metric that is no "
        "mean over examples is computed of each resample anew."
    )
    if frame["metric"].str.startswith("likeliest").any():
        note += (
            " Likeliest: the choice with the highest log-likelihood is the right one; per character: of the mean over "
            "its text."
        )
    return Listing("further", "Further metrics", columns, tuple(rows), note)


def further_metrics(frame: pd.DataFrame) -> dict[str, Any]:
    """row -> task -> metric -> mean, low, high, n, and the difference from base where there is one."""
    metrics: dict[str, Any] = {}
    for line in frame.to_dict("records"):
        numbers = {name: line[name] for name in NUMBERS if not pd.isna(line[name])}
        metrics.setdefault(line["row"], {}).setdefault(line["task"], {})[line["metric"]] = rounded(numbers)
    return metrics


def dispatch_metrics(frame: pd.DataFrame) -> dict[str, Any]:
    """dispatcher -> ``trained`` or ``unseen`` -> accuracy, its interval, and the difference from the prompt."""
    metrics: dict[str, Any] = {}
    names = ("mean", "low", "high", "n", *DIFFERENCES)
    for line in frame.to_dict("records"):
        if line["task"] in ("trained", "unseen"):
            numbers = {name: line[name] for name in names if not pd.isna(line[name])}
            metrics.setdefault(line["row"], {})[line["task"]] = rounded(numbers)
    return metrics


def win_rate_table(lines: Sequence[Mapping[str, Any]]) -> Listing:
    """Win rates, each beside how often its judge agrees with GPT-4. lines: of ``pipeline.evaluation.further``."""
    shares = ("win_rate", "low", "high", "controlled", "agreement", "agreement_low", "agreement_high")
    rows = tuple(
        (
            line["cell"],
            line["judge"],
            *(hundredths(line[key]) for key in shares[:3]),
            line["n"],
            *(hundredths(line[key]) for key in shares[3:]),
            line["agreement_n"],
            line["agreement_draws"],
        )
        for line in lines
    )
    columns = (
        "cell", "judge", "win rate, %", "low", "high", "n", "length-controlled, %", "agrees with GPT-4, %",
        "agreement low", "agreement high", "pairs", "draws left out",
    )  # fmt: skip
    references = sorted({line["reference"] for line in lines})
    note = (
        f"The share of answers that a judge prefers to those of {', '.join(references)}, a draw counting half, with "
        "its 95 % bootstrap interval; and how often the same judge, where it prefers one, prefers the answer that "
        "GPT-4 preferred on pairs annotated for AlpacaEval. One that agrees about half the time says nothing."
    )
    return Listing("win_rates", "Win rates, and what their judges' word is worth", columns, rows, note)


def win_rate_metrics(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """cell -> judge -> its win rate, its agreement, and their intervals. Fractions."""
    metrics: dict[str, Any] = {}
    for line in lines:
        numbers = {key: value for key, value in line.items() if key not in ("cell", "judge", "reference")}
        metrics.setdefault(line["cell"], {})[line["judge"]] = {
            key: value if isinstance(value, int) else round(value, 6) for key, value in numbers.items()
        }
    return metrics
