"""What is compared is said once: the plan follows from the settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.flow import profiles
from pipeline.flow.plan import SECTIONS, SLOTS, expand, news, text, update
from tests.graph.code import ROOT


@pytest.fixture
def laptop() -> dict[str, Any]:
    return yaml.safe_load(profiles.text("laptop"))


def test_the_committed_plan_is_what_the_settings_expand_to(tmp_path: Path) -> None:
    written = (ROOT / "plan.yaml").read_text(encoding="utf-8")
    assert written == text(expand(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_can_be_planned(name: str) -> None:
    plan = expand(yaml.safe_load(profiles.text(name)))
    assert tuple(plan) == SECTIONS
    assert yaml.safe_load(text(plan))["plan"] == plan


def test_a_cell_plans_what_it_needs(laptop: dict[str, Any]) -> None:
    laptop["tables"] = {"table1": {"tasks": ["sums"], "rows": ["svf"], "seeds": [2]}}
    laptop["spectra"] = {}
    plan = expand(laptop)
    assert list(plan["cells"]) == ["sums-svf-2"]
    assert plan["cells"]["sums-svf-2"]["adapter"] == "experts/svf-sums-2"
    assert list(plan["train_svf"]) == ["sums-2"]
    assert list(plan["prepare"]) == ["sums"]
    assert list(plan["factorize"]) == ["base"]
    assert not plan["train_supervised"]


def test_a_task_is_one_line(laptop: dict[str, Any]) -> None:
    """A fourth trained task joins Tables 1 and 7, and nothing that is there already is planned otherwise."""
    before = expand(laptop)
    laptop["tasks"]["alphabet"] = {**laptop["tasks"]["kinds"], "role": "trained"}
    after = expand(laptop)
    new = {key: item for key, item in after["cells"].items() if key not in before["cells"]}
    assert {item["row"] for item in new.values()} == {"base", "lora", "svf", "dora", "ia3"}
    assert {table for item in new.values() for table in item["tables"]} == {"table1", "table7"}
    for section in SECTIONS:
        assert {key: after[section][key] for key in before[section]} == before[section], section


def test_three_seeds_are_one_number(laptop: dict[str, Any]) -> None:
    before = expand(laptop)
    laptop["seeds"] = [0, 1, 2]
    after = expand(laptop)
    assert [key for key in after["cells"] if key.startswith("sums-svf-")][:3] == [
        "sums-svf-0",
        "sums-svf-1",
        "sums-svf-2",
    ]
    assert [key for key in after["cells"] if key.startswith("sums-base")] == ["sums-base"]
    assert {key: after["cells"][key] for key in before["cells"]} == before["cells"]
    assert after["dispatch"]["prompt-1"]["experts"][:3] == [
        f"experts/svf-{task}-1" for task in ("sums", "functions", "kinds")
    ]


def test_no_number_of_the_science_stands_in_the_plan(laptop: dict[str, Any]) -> None:
    numbers = {
        key
        for items in expand(laptop).values()
        for item in items.values()
        for key, value in item.items()
        if isinstance(value, int | float)
    }
    assert numbers == {"seed"}


def test_lists_fill_their_slots(laptop: dict[str, Any]) -> None:
    for items in expand(laptop).values():
        for item in items.values():
            for name, slots in SLOTS.items():
                assert name not in item or len(item[name]) == slots


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tables": {"table1": {"tasks": "trained", "rows": ["swf"]}}}, "names the row 'swf', which is not there"),
        ({"tables": {"table1": {"tasks": ["summs"], "rows": ["svf"]}}}, "names the task 'summs', which is not there"),
        ({"tables": {"table1": {"tasks": "trained", "row": ["svf"]}}}, "did you mean 'rows'"),
        ({"tables": {"table5": {"tasks": ["sums"], "rows": ["ordered"]}}}, "in a table of another base"),
        ({"tables": {"table5": {"base": "other", "tasks": ["sums"], "rows": ["svf"]}}}, "has no 'other'"),
        ({"rows": {"svf": {"method": "svf", "from": "train_swf"}}}, "'rows.svf.from' does not fit"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(laptop: dict[str, Any], change: dict[str, Any], said: str) -> None:
    laptop["spectra"] = {}
    with pytest.raises(UserError) as raised:
        expand({**laptop, **change})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mixture_of_more_experts_than_there_are_slots_is_refused(laptop: dict[str, Any]) -> None:
    laptop["rows"]["wide"] = {
        "method": "svf",
        "from": "adapt",
        "strategy": "few_shot",
        "experts": ["svf", "svf-mlp", "svf-attention"],
    }
    laptop["tables"] = {"table2": {"tasks": ["uses"], "rows": ["wide"]}}
    with pytest.raises(UserError, match="expected 1 to 8 experts for one stage, got 9"):
        expand(laptop)


def test_a_plan_that_is_behind_is_written_again_and_said(tmp_path: Path) -> None:
    params, plan = tmp_path / "params.yaml", tmp_path / "plan.yaml"
    params.write_text(profiles.text("laptop"), encoding="utf-8")
    assert update(params, plan)
    assert not update(params, plan)
    before = yaml.safe_load(plan.read_text(encoding="utf-8"))["plan"]
    params.write_text(profiles.changed(params.read_text(encoding="utf-8"), ["seeds=[0, 1]"]), encoding="utf-8")
    assert update(params, plan)
    said = news(before, yaml.safe_load(plan.read_text(encoding="utf-8"))["plan"])
    assert "+6 train_svf (sums-1, functions-1, kinds-1, …)" in said
    # numbers alone are no business of the plan's
    params.write_text(
        profiles.changed(params.read_text(encoding="utf-8"), ["reinforce.learning_rate=4.0e-3"]), encoding="utf-8"
    )
    assert not update(params, plan)


@pytest.mark.parametrize("name", profiles.names())
def test_a_change_of_a_setting_changes_its_line_alone(name: str) -> None:
    whole = profiles.text(name)
    assert profiles.changed(whole, []) == whole
    lines = zip(whole.splitlines(), profiles.changed(whole, ["seeds=[7]"]).splitlines(), strict=True)
    assert next(after for before, after in lines if before != after).startswith("seeds: [7]")


def test_a_profile_that_is_like_another_states_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    (tmp_path / "one.yaml").write_text(
        "# one: first\nprofile: one\na: {b: 1, c: 2}  # about a\ntables: {x: {}}\nspectra: {y: z}\n"
    )
    (tmp_path / "two.yaml").write_text("# two: second\nprofile: two\nlike: one\na: {b: 3, c: null}\ntables: {w: {}}\n")
    (tmp_path / "three.yaml").write_text("# three: third\nprofile: three\nlike: three\n")
    whole = yaml.safe_load(profiles.text("two"))
    assert whole == {"profile": "two", "a": {"b": 3}, "tables": {"w": {}}}
    assert "# about a" in profiles.text("two")
    assert profiles.text("two").startswith("# two: second\n")
    with pytest.raises(UserError, match="is like itself"):
        profiles.text("three")


def test_what_is_said_of_a_value_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    (tmp_path / "one.yaml").write_text(
        "# one: first\nprofile: one\na:  # about a\n  b: 1  # small\n  c: 2  # prime\n\n# about d\nd: {e: 'f: g'}\n"
    )
    (tmp_path / "two.yaml").write_text("# two: second\nprofile: two\nlike: one\na: {b: 3, c: 4}\nd: {h: 5}  # new\n")
    text = profiles.text("two")
    assert "small" not in text and "prime" not in text and "first" not in text
    assert all(comment in text for comment in ("# about a", "# about d", "# new", "'f: g'"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("reinfroce.steps=3", "no section 'reinfroce'"),
        ("steps", "expected a change as place=value"),
        ("seeds=[0", "expected YAML"),
    ],
)
def test_a_change_that_does_not_fit_is_one_sentence(change: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        profiles.changed(profiles.text("laptop"), [change])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
