"""A table as lines of text."""

from pathlib import Path

import pandas as pd

from pipeline.evaluation.intervals import Resampling
from pipeline.reporting import short

DRAWN = Resampling(resamples=200, seed=0)
CELLS = {
    "sums-base": {"row": "base", "task": "sums", "seed": 0},
    "sums-svf-0": {"row": "svf", "task": "sums", "seed": 0},
    "kinds-base": {"row": "base", "task": "kinds", "seed": 0},
}


def scored(folder: Path, cell: str, right: int, n: int = 20) -> None:
    correct = [number < right for number in range(n)]
    frame = {"id": [str(number) for number in range(n)], "correct": correct, "parsed": ["x"] * n, "finished": True}
    pd.DataFrame({**frame, "tokens": 3}).to_parquet(folder / f"{cell}.parquet")


def test_a_table_has_intervals_differences_and_the_best_rule(tmp_path: Path) -> None:
    (tmp_path / "heuristics").mkdir()
    rule = {"rule": "always 7", "id": [str(number) for number in range(20)], "value": 0.25, "answer": "7"}
    pd.DataFrame(rule).to_parquet(tmp_path / "heuristics/sums.parquet")
    scored(tmp_path, "sums-base", 5)
    scored(tmp_path, "sums-svf-0", 15)
    lines = short.lines(CELLS, tmp_path, DRAWN)
    assert [line.split()[:3] for line in lines] == [
        ["task", "row", "accuracy,"],
        ["sums", "base", "25.0"],
        ["sums", "no", "model"],
        ["sums", "svf", "75.0"],
    ]
    assert "+50.0 [+" in lines[3]
    assert lines[3].endswith("better")
    assert lines[2].endswith("always 7")


def test_nothing_scored_is_no_table(tmp_path: Path) -> None:
    assert short.lines(CELLS, tmp_path, DRAWN) == []
