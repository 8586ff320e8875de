"""Which cells were answered by an adapter that is as it began, and what the report says of them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.core.artifacts import read_jsonl, write_jsonl
from pipeline.reporting.planned import Plan
from pipeline.reporting.read import Run
from pipeline.reporting.untrained import untrained_cells
from stages import report
from tests.made import TRAINED, make_run

START, END = pd.DataFrame({"step": [0, 1], "chosen": [True, False]}), pd.DataFrame({"step": [0, 1], "chosen": [0, 1]})


def run_of(adapter: str, curves: dict[str, pd.DataFrame], **sections: Any) -> Run:
    """A run with one cell, of an adapter."""
    cell = {"method": "svf", "row": "svf", "tables": ["table1"], "task": "sums", "seed": 0, "adapter": adapter}
    plan = Plan.parse({"cells": {"sums-svf-0": cell}, **sections}, "")
    provenance = {"adapted/best": {"experts": ["a", "b"], "alpha": [[0.0, 1.0]]}}
    return Run(plan, None, pd.DataFrame(), {}, provenance, {}, {}, curves=curves)  # type: ignore[arg-type]


@pytest.mark.parametrize(("curve", "untrained"), [(START, True), (END, False), (START.assign(chosen=False), False)])
def test_the_curve_says_which_step_was_chosen(curve: pd.DataFrame, untrained: bool) -> None:
    assert untrained_cells(run_of("experts/svf-sums-0", {"svf-sums-0": curve})) == (
        {"sums-svf-0"} if untrained else set()
    )


def test_what_has_no_curve_is_taken_to_be_trained() -> None:
    assert untrained_cells(run_of("experts/svf-sums-0", {})) == set()
    assert untrained_cells(run_of("base/base", {"svf-sums-0": START})) == set()


@pytest.mark.parametrize(("curves", "untrained"), [({"a": START, "b": START}, True), ({"a": START, "b": END}, False)])
def test_a_mixture_is_untrained_where_all_its_experts_are(curves: dict[str, pd.DataFrame], untrained: bool) -> None:
    experts = {"seed": 0, "row": "x", "experts": ["experts/a", "experts/b", "experts/b"]}
    search = {**experts, "strategy": "few_shot", "task": "sums", "adapter": "adapted/x"}
    found = untrained_cells(run_of("adapted/x", curves, adapt={"x": search}))
    assert bool(found) == untrained
    dispatcher = {**experts, "adapter": "base/base"}
    found = untrained_cells(run_of("dispatched/prompt-0/sums", curves, dispatch={"prompt-0": dispatcher}))
    assert bool(found) == untrained


def test_the_expert_that_was_selected_counts_alone() -> None:
    search = {"seed": 0, "row": "x", "strategy": "select", "task": "sums", "adapter": "adapted/best"}
    search |= {"experts": ["experts/a", "experts/b"]}
    assert untrained_cells(run_of("adapted/best", {"a": START, "b": END}, adapt={"x": search})) == set()
    assert untrained_cells(run_of("adapted/best", {"a": END, "b": START}, adapt={"x": search})) == {"sums-svf-0"}


def test_a_moved_expert_is_as_trained_as_the_one_it_comes_from() -> None:
    moved = {"x": {"expert": "experts/a", "adapter": "transferred/x", "order": "ordered"}}
    assert untrained_cells(run_of("transferred/x", {"a": START}, transfer=moved)) == {"sums-svf-0"}
    assert untrained_cells(run_of("transferred/x", {"a": END}, transfer=moved)) == set()


def test_the_report_calls_them_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make_run(tmp_path, layers=2)
    path = tmp_path / "artifacts/curves/svf-sums-0.jsonl"
    first = {"step": 0, "kl_coefficient": 0.1}
    write_jsonl(path, [{**row, "chosen": first.items() <= row.items()} for row in read_jsonl(path)])
    monkeypatch.chdir(tmp_path)
    report.run(**arguments)
    table = pd.read_csv(tmp_path / "reports/tables/table1.csv").set_index(["row", "task"])
    assert table.loc[("svf", "sums"), "verdict"] == "not trained"
    assert set(table.loc["svf"].loc[[TRAINED["code"], TRAINED["reasoning"]], "verdict"]) & {"not trained"} == set()
    page = (tmp_path / "reports/site/table1.html").read_text()
    assert "not trained</span>" in page and "validation chose step 0, so its adapter is as it began" in page
    assert "not trained (validation chose step 0" in (tmp_path / "reports/tables/table1.md").read_text()
