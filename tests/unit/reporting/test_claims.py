"""The papers' claims: the list itself, what evidence is, how its lines are joined, and runs side by side."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.evaluation.intervals import Resampling, compare
from pipeline.evaluation.joint import Effect
from pipeline.flow import profiles
from pipeline.reporting.claims import (
    VERDICTS,
    Claim,
    Judged,
    Line,
    Pair,
    counts,
    join,
    read_claims,
    references,
    sentences,
    spelled,
    word_of,
)
from pipeline.reporting.evidence import SOURCES, Measured, judge
from pipeline.reporting.figures.claims import forest
from pipeline.reporting.planned import RunSettings, read_plan
from pipeline.reporting.read import Run, read_published
from pipeline.reporting.tables.claims import OWN, Judge, claims_metrics, claims_table, rows_of
from tests.made import PARAMS, PUBLISHED, make_run, plain

LISTED = read_claims(read_published(PUBLISHED))
DRAWN = Resampling(resamples=500, seed=0)


def claim(**fields: Any) -> Claim:
    about = {"id": "t2-it", "paper": "transformer2", "place": "Table 1", "says": "It is so.", "table": "table1"}
    (one,) = read_claims({"claims": [{**about, "pairs": [["svf", "base"]], **fields}]})
    return one


# ---- the list --------------------------------------------------------------------------------------------------------


def test_every_claim_of_the_three_papers_has_a_place_and_a_sentence() -> None:
    assert {one.paper for one in LISTED} == {"transformer2", "reft", "csreft"}
    places = {f"{one.paper} {place}" for one in LISTED for place in re.split(", | and ", one.place)}
    for number in (1, 2, 3, 4, 5, 7, 8, 9, 10):
        assert f"transformer2 Table {number}" in places
    assert {"transformer2 Figure 4", "transformer2 Figure 6", "transformer2 Figure 7", "reft Table 4"} <= places
    assert all(one.says.endswith(".") and one.says[0].isupper() for one in LISTED)


def test_every_compared_row_stands_in_a_table_of_a_profile() -> None:
    tables: dict[str, set[str]] = {}
    for name in profiles.names():
        for key, parts in yaml.safe_load(profiles.text(name)).get("tables", {}).items():
            for part in parts if isinstance(parts, list) else [parts]:
                tables.setdefault(key, set()).update(part["rows"])
    for one in LISTED:
        keys = [key for key in one.table if key not in SOURCES and key != "dispatch"]
        for pair in one.pairs if keys else ():
            known = {row for key in keys for row in tables.get(key, ())}
            assert all(known.intersection(names) for names in pair), (one.id, pair)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rule": "any"}, "at 'rule': input should be 'all', 'most', 'some' or 'mean', got 'any'; correct it"),
        ({"tabel": "x"}, "the claim 't2-it' does not fit at 'tabel': extra inputs are not permitted"),
        ({"table": "parameters"}, "expected 'at_most' for the table 'parameters'"),
        ({"unmeasured": "No."}, "expected either a table or why it is unmeasured"),
        ({"pairs": [["svf"]]}, "at 'pairs.0.1': field required"),
    ],
)
def test_a_claim_that_does_not_fit_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(
        UserError, match=r"^expected claims of their form in data/published/claims\.yaml, but "
    ) as caught:
        claim(**changes)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_an_id_that_stands_twice_is_one_sentence() -> None:
    one = {"id": "t2-it", "paper": "reft", "place": "x", "says": "Yes.", "unmeasured": "No."}
    with pytest.raises(UserError, match="expected every claim to have an id of its own, got 't2-it' twice; rename one"):
        read_claims({"claims": [one, one]})
    assert read_claims({}) == ()


# ---- joining ---------------------------------------------------------------------------------------------------------


def lines(*words: str) -> list[Line]:
    return [Line(Pair("svf", "base"), f"task{place}", Effect(0.0), word) for place, word in enumerate(words)]


B, W, U, N, S = "better", "worse", "undecided", "not interpretable", "not trained"


@pytest.mark.parametrize(
    ("rule", "words", "verdict"),
    [
        ("all", (B, B), "holds"),
        ("all", (B, U), "undecided"),
        ("all", (B, S), "undecided"),
        ("all", (B, N), "not interpretable"),
        ("all", (W, N, B), "does not hold"),
        ("most", (B, B, W), "holds"),
        ("most", (B, B, N), "holds"),
        ("most", (B, W), "does not hold"),
        ("most", (B, U), "undecided"),
        ("most", (B, U, U), "undecided"),
        ("most", (B, N), "not interpretable"),
        ("most", (B, U, N), "undecided"),
        ("some", (U, W, B), "holds"),
        ("some", (W, W), "does not hold"),
        ("some", (W, U), "undecided"),
        ("some", (W, N), "not interpretable"),
        ("mean", (B, B), "holds"),
        ("mean", (U, W), "does not hold"),
        ("all", (), "not measured"),
    ],
)
def test_a_rule_joins_what_the_lines_say(rule: str, words: tuple[str, ...], verdict: str) -> None:
    assert join(rule, lines(*words)) == verdict


def test_some_of_many_asks_for_more_than_one_interval() -> None:
    for p, verdict in ((0.04, "undecided"), (0.01, "holds"), (None, "holds")):
        tried = [*lines(U, U, W), Line(Pair("svf", "base"), "sums", Effect(0.1, 0.01, 0.2), B, p=p)]
        assert join("some", tried) == verdict


def test_one_reason_is_said_once() -> None:
    told = [replace(line, reason="97 % cut") for line in lines(N, N, S)] + lines(B)
    assert spelled(told, margin=False) == [
        "better on task0",
        "not trained on task2 (97 % cut)",
        "not interpretable on task0 and task1 (97 % cut)",
    ]


def test_a_line_is_worded_by_its_interval_alone() -> None:
    for low, high, word in ((0.01, 0.2, B), (-0.2, -0.01, W), (-0.1, 0.1, U), (0.0, 0.1, U)):
        assert word_of(Effect(0.9, low, high)) == word
    assert word_of(Effect(0.0, -0.01, 0.01), margin=0.02) == B
    assert word_of(Effect(0.0, -0.03, 0.01), margin=0.02) == U
    assert word_of(Effect(-0.1, -0.2, -0.03), margin=0.02) == W


# ---- evidence --------------------------------------------------------------------------------------------------------


def scores(right: dict[tuple[str, str], int], n: int = 100, **columns: Any) -> pd.DataFrame:
    """Of n examples, how many the first are right, by row and task."""
    about = {"seed": 0, "parsed": True, "finished": True, "tokens": 5, **columns}
    return pd.DataFrame(
        [
            {"row": row, "task": task, "cell": f"{task}-{row}", "id": f"{task}-{k}", "correct": k < count, **about}
            for (row, task), count in right.items()
            for k in range(n)
        ]
    )


def measured(tables: dict[str, pd.DataFrame], claims: tuple[Claim, ...], tmp_path: Path, **known: Any) -> Measured:
    """What claims are judged by, of a run that has these tables; the rest of it is made up."""
    (tmp_path / "nothing.yaml").write_text("plan: {}")
    run = Run(read_plan(tmp_path / "nothing.yaml"), RunSettings.read(plain(PARAMS), {}), pd.DataFrame(), {}, {}, {}, {})
    versus = {
        key: {
            reference: compare(part[part["row"].isin([*rows, reference])], DRAWN, reference)
            for reference, rows in references(claims, key, dict.fromkeys(part["row"])).items()
        }
        for key, part in tables.items()
    }
    return Measured(replace(run, **known.pop("run", {})), DRAWN, tables, versus, **known)


RIGHT = {("base", "sums"): 30, ("base", "oldest"): 50, ("svf", "sums"): 60, ("svf", "oldest"): 50}
RIGHT |= {("lora", "sums"): 10, ("lora", "oldest"): 30}


def test_rows_are_compared_by_pair_and_task(tmp_path: Path) -> None:
    most, reverse, mean, missing = (
        claim(rule="most"),
        claim(pairs=[["base", "lora"]], rule="mean"),
        claim(rule="mean", tasks="trained"),
        claim(pairs=[["svf", "dora"]]),
    )
    given = measured({"table1": scores(RIGHT)}, (most, reverse, mean, missing), tmp_path)
    by_task, turned, on_mean, none = judge((most, reverse, mean, missing), given)
    assert [(line.task, line.word) for line in by_task.lines] == [("sums", "better"), ("oldest", "undecided")]
    assert by_task.verdict == "undecided" and by_task.effect.mean == pytest.approx(0.15) and by_task.effect.n == 200
    assert by_task.details == "SVF expert against Base model: better on sums; undecided on oldest at n = 100."
    assert turned.verdict == "holds" and turned.effect.mean == pytest.approx(0.2)
    assert turned.effect.low < 0.2 < turned.effect.high
    line = given.versus["table1"]["base"].set_index(["row", "task"]).loc[("svf", "mean_over_tasks")]
    assert tuple(on_mean.effect[:3]) == (line["diff"], line["diff_low"], line["diff_high"])
    assert on_mean.verdict == "holds" and [one.task for one in on_mean.lines] == ["mean over tasks"]
    assert none.verdict == "not measured" and none.lines == ()
    assert "It is so: holds (+15.0 [" in on_mean.sentence and "], n = 200, 1 seed)." in on_mean.sentence


def test_several_pairs_have_one_effect_over_the_same_examples(tmp_path: Path) -> None:
    both = claim(pairs=[["svf", "base"], ["svf", "lora"], ["svf", "dora"]], rule="mean")
    (found,) = judge((both,), measured({"table1": scores(RIGHT)}, (both,), tmp_path))
    assert found.effect.mean == pytest.approx((0.15 + 0.35) / 2) and found.effect.n == 200
    assert found.verdict == "holds" and found.details.endswith("Compared: 2 of 3 pairs.")


def test_a_claim_about_some_tasks_is_drawn_where_it_speaks_most(tmp_path: Path) -> None:
    one = claim(rule="some")
    (found,) = judge((one,), measured({"table1": scores(RIGHT)}, (one,), tmp_path))
    assert (
        found.verdict == "holds" and found.effect == found.lines[0].effect and found.effect.mean == pytest.approx(0.3)
    )


def test_a_verdict_that_is_withheld_is_no_evidence(tmp_path: Path) -> None:
    one = claim(rule="all")
    given = measured({"table1": scores(RIGHT)}, (one,), tmp_path)
    frame = given.versus["table1"]["base"].assign(reason="")
    for word, verdict in (("not interpretable", "not interpretable"), ("not trained", "undecided")):
        withheld = frame.copy()
        withheld.loc[withheld["task"] == "sums", ["verdict", "reason"]] = [word, "97 % cut"]
        (found,) = judge((one,), replace(given, versus={"table1": {"base": withheld}}))
        assert found.verdict == verdict and f"{word} on sums (97 % cut)" in found.details
        (found,) = judge((claim(rule="mean"),), replace(given, versus={"table1": {"base": withheld}}))
        assert found.verdict == "holds"  # the table gives its mean over tasks a verdict of its own
        part = withheld[withheld["task"] != "mean_over_tasks"]
        (found,) = judge((claim(rule="mean"),), replace(given, versus={"table1": {"base": part}}))
        assert found.verdict == ("not interpretable" if word == "not interpretable" else "holds")
        assert found.effect.mean == pytest.approx(0.15)


def test_the_first_name_and_the_first_table_that_a_run_has_count(tmp_path: Path) -> None:
    one = claim(table=["table5", "table1"], pairs=[[["svf-both", "svf"], "base"]], tasks=["sums"])
    (found,) = judge((one,), measured({"table1": scores(RIGHT)}, (one,), tmp_path))
    assert found.table == "table1" and found.lines[0].pair == ("svf", "base") and len(found.lines) == 1
    assert sentences([found], "table1") and not sentences([found], "table5")


def test_a_first_pass_is_timed_where_a_run_keeps_its_seconds(tmp_path: Path) -> None:
    arguments = make_run(tmp_path)
    one = next(each for each in LISTED if each.id == "t2-first-pass-is-cheap")
    run = {"plan": read_plan(arguments["plan"]), "settings": arguments["settings"]}
    known = {"seconds": {"dispatch@prompt-0": 24.0, "generate@queue-prompt-0": 8.0}}
    known["prompts"] = dict.fromkeys(PARAMS["tasks"], 40)
    (found,) = judge((one,), measured({}, (one,), tmp_path, run=run, **known))
    assert found.effect.mean == pytest.approx((24 / 240) / (8 / 40)) and found.verdict == "holds"
    assert found.details == "SVF mixed by prompt against second pass: 0.5 on queue."


def test_win_rates_rest_on_a_judge_that_agrees_with_gpt_4(tmp_path: Path) -> None:
    cells = {
        f"alpaca-{row}": {
            "method": "reft",
            "row": row,
            "tables": ["alpaca_eval"],
            "task": "a",
            "seed": 0,
            "adapter": "x",
        }
        for row in ("reft", "lora")
    }
    (tmp_path / "cells.yaml").write_text(yaml.safe_dump({"plan": {"cells": cells}}))
    plan = read_plan(tmp_path / "cells.yaml")
    one = next(each for each in LISTED if each.id == "reft-instructions")
    said = {"alpaca-reft": [2.0] * 30, "alpaca-lora": [1.0, 2.0, 1.0] * 10}
    for agreed, verdict in (([1] * 80 + [0] * 20, "holds"), ([1, 0] * 50, "not interpretable")):
        judged = [{"cell": cell, "judge": "it", "preferences": one_, "agreed": agreed} for cell, one_ in said.items()]
        (found,) = judge((one,), measured({}, (one,), tmp_path, run={"plan": plan}, judged=judged))
        assert found.verdict == verdict and found.effect.mean == pytest.approx(2 / 3)
    assert "not interpretable on judge it (its judge 'it' agrees with GPT-4 on 50.0 % of pairs)" in found.details


def test_glue_is_judged_with_a_margin_on_the_mean_over_its_tasks(tmp_path: Path) -> None:
    line = {"row": "reft", "metric": "f1", "verdict": "undecided", "n": 400, "seeds": 1}
    metrics = pd.DataFrame(
        [
            {**line, "task": "mrpc", "diff": 0.0, "diff_low": -0.03, "diff_high": 0.03},
            {**line, "task": "rte", "diff": 0.04, "diff_low": 0.01, "diff_high": 0.07},
            {**line, "task": "rte", "row": "lora", "diff": None, "verdict": None},
        ]
    )
    one = next(each for each in LISTED if each.id == "reft-glue")
    (found,) = judge((one,), measured({}, (one,), tmp_path, head_metrics=metrics))
    assert found.effect == pytest.approx((0.02, 0.02 - 0.03 / 2**0.5, 0.02 + 0.03 / 2**0.5, 800))
    assert found.details.endswith("within the margin on mean over tasks.") and "margin −2.0" in found.sentence
    assert found.verdict == "holds"  # its interval begins at −0.1 points, within the two that are allowed


# ---- what is shown ---------------------------------------------------------------------------------------------------


def of_run(name: str, model: str, *judged: Judged) -> Judge:
    return Judge(name, model, judged)


def told(verdict: str, effect: Effect | None, **fields: Any) -> Judged:
    line = Line(Pair("svf", "base"), "sums", effect or Effect(0.0), "better", 3)
    return Judged(claim(**fields), verdict, "table1", (line,), effect)


def test_runs_stand_side_by_side_by_model() -> None:
    own = of_run(OWN, "Small", told("holds", Effect(0.1, 0.05, 0.2, 200)))
    other = of_run("bench", "Large", told("undecided", Effect(0.01, -0.05, 0.1, 400)))
    third = of_run("bench-small", "Small", Judged(claim(), "not measured"))
    (rows,) = rows_of([own, other, third]).values()
    (row,) = rows
    assert list(row.entries) == ["Small", "Large"] and row.unmeasured == ""
    assert [(one.run, one.path) for part in row.entries.values() for one in part] == [
        (OWN, "site/table1.html"),
        ("bench", "site/published.html#bench"),
    ]
    listing = claims_table([own, other, third])
    assert [line[4:12] for line in listing.rows] == [
        ("Small", OWN, "holds", 10.0, 5.0, 20.0, 200, 3),
        ("Large", "bench", "undecided", 1.0, -5.0, 10.0, 400, 3),
    ]
    numbers = claims_metrics([own, other])
    assert numbers["holds"] == 1 and numbers["published"]["bench"]["undecided"] == 1
    drawn = forest([own, other, third], "claims")
    assert drawn is not None and "Large, bench" in drawn and "bench-small" not in drawn
    assert forest([third], "claims") is None


def test_every_verdict_is_counted() -> None:
    judged = [told(verdict, None) for verdict in VERDICTS] + [told("holds", None)]
    assert counts(judged) == {
        "holds": 2,
        "does_not_hold": 1,
        "undecided": 1,
        "not_interpretable": 1,
        "not_measured": 1,
    }
