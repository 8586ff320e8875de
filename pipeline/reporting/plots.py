"""The data of DVC's plots, as CSV: what trainings learnt, every row's accuracy, and the mixtures that searches found.

``dvc.yaml`` says how they are drawn. Columns that a person reads are named as one; accuracies are in percent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.reporting.read import Run
from pipeline.reporting.tables.comparison import Comparison
from pipeline.reporting.tables.learning import rewarded

REWARDS = ["training", "coefficient", "step", "reward"]
VALIDATION = ["training", "coefficient", "step", "validation"]
LOSSES = ["training", "step", "loss"]
ACCURACY = ["panel", "table", "task", "row", "accuracy", "low", "high"]
ALPHA = ["search", "layer", "expert", "alpha"]


def plot_files(run: Run, comparisons: Sequence[Comparison]) -> dict[str, str]:
    """The files by name. One without rows has its heading, so that DVC finds what dvc.yaml names."""
    learnt = rewarded(run.curves)
    others = {name: curve for name, curve in run.curves.items() if name not in learnt}
    mixed = [line for name, mixture in run.mixtures.items() for line in _alphas(name, mixture)]
    frames = {
        "rewards": _curves(learnt, {"train": "reward", "kl_coefficient": "coefficient"}, REWARDS),
        "validation": _curves(learnt, {"kl_coefficient": "coefficient"}, VALIDATION),
        "losses": _curves(others, {"train": "loss"}, LOSSES),
        "accuracy": pd.DataFrame([line for table in comparisons for line in _accuracies(table)], columns=ACCURACY),
        "alpha": pd.DataFrame(mixed, columns=ALPHA),
    }
    return {
        f"{name}.csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        for name, frame in frames.items()
    }


def _curves(curves: Mapping[str, pd.DataFrame], names: Mapping[str, str], columns: list[str]) -> pd.DataFrame:
    """Curves below each other, without the steps at which the last of the columns was not measured.

    names: of columns, that they have here.
    """
    frames = [curve.assign(training=name).rename(columns=names) for name, curve in curves.items()]
    whole = [frame.reindex(columns=columns).dropna(subset=columns[-1:]).astype({"step": int}) for frame in frames]
    return pd.concat(whole, ignore_index=True) if whole else pd.DataFrame(columns=columns)


def _accuracies(table: Comparison) -> list[dict[str, Any]]:
    """A line for each entry of a table, its mean over tasks left out."""
    return [
        {
            "panel": f"{table.name}, {line['task'].replace('_', ' ')}",
            "table": table.key,
            "task": line["task"],
            "row": line["row"],
            "accuracy": 100 * line["mean"],
            "low": 100 * line["low"],
            "high": 100 * line["high"],
        }
        for line in table.frame[table.frame["task"].isin(list(table.domains))].to_dict("records")
    ]


def _alphas(name: str, mixture: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each expert of a mixture and each layer that has its own coefficients; else for the layer 0 alone."""
    return [
        {"search": name, "layer": layer, "expert": expert, "alpha": value}
        for layer, values in enumerate(mixture["alpha"])
        for expert, value in zip(mixture["experts"], values, strict=True)
    ]
