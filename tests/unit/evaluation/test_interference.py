"""The interference matrix against numbers worked out by hand."""

import pandas as pd
import pytest
import yaml

from pipeline.core.artifacts import write_jsonl, write_tensors
from pipeline.core.errors import UserError
from pipeline.evaluation.interference import advantage, contrast, matrix
from pipeline.evaluation.intervals import Resampling
from pipeline.reporting.figures.skills import apart
from pipeline.reporting.planned import ReportSettings
from pipeline.reporting.skills import SkillReport
from pipeline.reporting.tables import skills
from pipeline.reporting.tables.listing import listing_markdown
from stages.compare_skills import run

DRAWN = Resampling(resamples=500, seed=0)
# Of 100 examples, how many the first are right: (row, task) to one number a seed.
RIGHT = {
    ("loreft", "sums"): (40, 60),
    ("loreft", "oldest"): (50, 50),
    ("loreft_alone", "sums"): (80, 80),
    ("loreft_alone", "oldest"): (60, 60),
    ("csreft", "sums"): (70, 70),
    ("csreft", "oldest"): (55, 65),
    ("loreft_each", "sums"): (70, 70),
    ("loreft_each", "oldest"): (60, 60),
}
REFERENCES = {"loreft": "loreft_alone", "csreft": "loreft_each"}
COMMON = dict.fromkeys(REFERENCES, "loreft_alone")


def scores() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "row": row,
                "task": task,
                "seed": seed,
                "cell": f"{row}-{task}-{seed}",
                "id": f"{task}-{number}",
                "correct": number < right,
            }
            for (row, task), rights in RIGHT.items()
            for seed, right in enumerate(rights)
            for number in range(100)
        ]
    )


def test_the_change_is_together_less_alone_seeds_averaged():
    found = matrix(scores(), REFERENCES, DRAWN).set_index(["row", "task"])
    assert found.loc[("loreft", "sums"), "diff"] == pytest.approx(-0.30)
    assert found.loc[("loreft", "oldest"), "diff"] == pytest.approx(-0.10)
    assert found.loc[("loreft", "mean_over_tasks"), "diff"] == pytest.approx(-0.20)
    assert found.loc[("loreft", "sums"), ["together", "alone"]].tolist() == [0.5, 0.8]
    assert list(found["verdict"]) == ["worse", "worse", "worse", "undecided", "undecided", "undecided"]
    assert set(found["seeds"]) == {2} and found.loc[("loreft", "sums"), "n"] == 100


def test_seeds_that_differ_widen_the_interval():
    found = matrix(scores(), REFERENCES, DRAWN).set_index(["row", "task"])
    apart, alike = (found.loc[("loreft", task)] for task in ("sums", "oldest"))  # of 40 and 60, and of 50 twice
    assert apart["diff_high"] - apart["diff_low"] > 1.5 * (alike["diff_high"] - alike["diff_low"])
    fixed = matrix(scores().query("seed == 0"), REFERENCES, DRAWN)
    assert (fixed["seeds"] == 1).all() and fixed["diff"].iloc[0] == pytest.approx(-0.4)


def test_of_two_methods_the_one_that_changes_for_the_better_suffers_less():
    found = contrast(scores(), REFERENCES, ("csreft", "loreft"), DRAWN)
    assert found["diff"] == pytest.approx(0.20) and found["verdict"] == "better" and found["n"] == 200
    assert "csreft loses less than loreft" in skills.claim(found, ("csreft", "loreft"))
    turned = contrast(scores(), REFERENCES, ("loreft", "csreft"), DRAWN)
    assert turned["diff"] == pytest.approx(-float(found["diff"])) and turned["verdict"] == "worse"
    assert turned["diff_low"] == pytest.approx(-float(found["diff_high"]), abs=0.02)  # seeds are drawn in another order
    same = contrast(scores(), REFERENCES, ("loreft", "loreft"), DRAWN)
    assert "is not shown to lose less" in skills.claim(same, ("loreft", "loreft"))


def test_a_common_reference_cancels_from_the_difference_of_two_changes():
    found = contrast(scores(), COMMON, ("csreft", "loreft"), DRAWN)
    changed = matrix(scores(), COMMON, DRAWN).set_index(["row", "task"])["diff"]
    expected = changed["csreft", "mean_over_tasks"] - changed["loreft", "mean_over_tasks"]
    assert found["diff"] == pytest.approx(expected) == pytest.approx(0.15)
    assert found == advantage(scores(), ("csreft", "loreft"), DRAWN) and found["seeds"] == 2


@pytest.mark.parametrize(
    ("words", "head", "said"),
    [
        (("better", "better"), "Yes", "less than loreft (+5.0 points"),
        (("better", "undecided"), "In part", "and not told apart from lora (+5.0 points"),
        (("better", "worse"), "In part", "and more than lora"),
        (("undecided", "undecided"), "Not shown", "not told apart from loreft"),
        (("undecided", "worse"), "No", "more than lora"),
    ],
)
def test_one_sentence_answers_who_suffers_less_by_the_intervals_alone(words, head, said):
    numbers = {"diff": 0.05, "diff_low": 0.01, "diff_high": 0.09, "n": 600, "seeds": 5}
    found = {name: {**numbers, "verdict": word} for name, word in zip(("loreft", "lora"), words, strict=True)}
    sizes = {"csreft": (1200, 300), "loreft": (1200, 0), "lora": (1100, 0)}
    sentence = skills.answer("csreft", found, sizes, "loreft_alone")
    assert sentence.startswith(f"Does csreft suffer less interference than loreft and lora of its size? {head}: ")
    assert said in sentence and "on the one reference loreft alone (n = 600, 5 seeds; parameters: " in sentence
    assert "csreft 1\u202f200 and a router of 300, loreft 1\u202f200, lora 1\u202f100)." in sentence


def test_methods_of_the_same_size_are_drawn_side_by_side():
    found = apart({"a": 1000, "b": 5000, "c": 1000, "d": 1010})
    assert list(found) == ["a", "b", "c", "d"] and found["b"] == pytest.approx(5000)
    near = sorted(found[row] for row in "acd")
    assert [near[1] / near[0], near[2] / near[1]] == pytest.approx([1.05, 1.05])
    assert near[1] == pytest.approx(1003, rel=0.01)


def test_the_advantage_of_a_row_needs_no_reference_and_draws_seeds_too():
    found = advantage(scores(), ("csreft", "loreft"), DRAWN)
    assert found["diff"] == pytest.approx((0.20 + 0.10) / 2) and found["n"] == 200
    assert found["diff_low"] < found["diff"] < found["diff_high"]
    assert "csreft is more accurate than loreft: +15.0 points" in skills.advantage_claim(
        {**found, "verdict": "better"}, ("csreft", "loreft")
    )
    fixed = scores().query("seed == 0")
    single = advantage(fixed, ("csreft", "loreft"), DRAWN)
    assert single["diff"] == pytest.approx((0.30 + 0.05) / 2)
    one = advantage(scores(), ("csreft", "csreft"), DRAWN)
    assert one["diff"] == pytest.approx(0) and one["verdict"] == "undecided"


def test_the_table_has_a_line_a_method_and_a_column_a_skill():
    common, own = (matrix(scores(), one, DRAWN) for one in (COMMON, {"csreft": "loreft_each"}))
    listing = skills.matrix_table(common, own, {"loreft": 12, "csreft": 15}, {"csreft": 3})
    names = ("sums", "oldest", "mean over tasks", "mean, against its own size alone")
    assert listing.columns == ("trained together", "parameters", "router’s", *names)
    assert [row[:3] for row in listing.rows] == [("loreft", 12, None), ("csreft", 15, 3)]
    assert listing.rows[0][3].startswith("−30.0 [") and listing.rows[0][3].endswith("; 50.0 against 80.0 alone")
    assert listing.rows[0][6] is None and "65.0 against 65.0 alone" in listing.rows[1][6]
    assert (
        listing.rows[1][5].endswith("; 65.0 against 70.0 alone") and "loreft alone, the one reference" in listing.note
    )
    assert "−30.0" in listing_markdown(listing)


def test_a_row_without_cells_or_without_its_skill_alone_is_one_sentence():
    with pytest.raises(UserError, match="expected cells of the row 'nobody'"):
        matrix(scores(), {"loreft": "nobody"}, DRAWN)
    part = scores()
    part = part[(part["row"] != "loreft_alone") | (part["task"] != "sums")]
    with pytest.raises(UserError, match="expected cells of the row 'loreft_alone' on sums"):
        matrix(part, REFERENCES, DRAWN)


def test_the_stage_writes_tables_figures_and_claims_from_the_cells_files(tmp_path):
    rows = {**dict.fromkeys(("loreft", "loreft_alone"), "reft"), **dict.fromkeys(("csreft", "loreft_each"), "csreft")}
    plan = {"cells": {}, "train_skills": {}, "train_csreft": {}}
    for name, part in scores().groupby("cell"):
        row, task, seed = part.iloc[0][["row", "task", "seed"]]
        cell = {"method": rows[row], "row": row, "tables": ["experiment"], "task": task, "seed": int(seed)}
        plan["cells"][name] = {**cell, "adapter": f"skills/{row}"}
        write_jsonl(tmp_path / f"completions/{name}.jsonl", ({"id": one, "text": f"{one} {row}"} for one in part["id"]))
        (tmp_path / "scores").mkdir(exist_ok=True)
        part[["id", "correct"]].to_parquet(tmp_path / f"scores/{name}.parquet")
    for row, method in rows.items():
        section = "train_csreft" if method == "csreft" else "train_skills"
        plan[section][row] = {"row": row, "method": method, "seed": 0, "adapter": f"skills/{row}"}
        provenance = {"method": method, "tasks": ["sums", "oldest"][: 1 if "_" in row else 2], "parameters": 12}
        write_tensors(tmp_path / f"skills/{row}.safetensors", {}, {"provenance": provenance})
        if method == "csreft":
            opened = [{"id": str(n), "skill": ("sums", "oldest")[n % 2], "gates": [n % 2, 1.0]} for n in range(6)]
            write_jsonl(tmp_path / f"skills/{row}.gates.jsonl", opened)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"plan": plan}))
    (tmp_path / "skills/left.gates.jsonl").write_text("of another plan")
    asked = SkillReport(
        table="experiment",
        together=tuple(REFERENCES),
        alone="loreft_alone",
        own=REFERENCES,
        claims=(("csreft", "loreft"),),
        router=("csreft",),
        growth=("loreft_each", "csreft"),
        added={"csreft": "loreft"},
    )
    settings = ReportSettings(resamples=200, seed=0, samples=3)
    places = {name: tmp_path / name for name in ("scores", "completions")}
    places |= {"plan": tmp_path / "plan.yaml", "adapters": tmp_path / "skills", "written": tmp_path / "out"}
    found = run(report="it", asked=asked, settings=settings, **places)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    listings = {f"{name}.{kind}" for name in ("interference", "router", "growth", "added") for kind in ("md", "csv")}
    drawn = {f"{name}.svg" for name in ("interference", "parameters", "skill-gates", "growth")}
    assert names == listings | drawn | {"matrix.csv", "claims.md"}
    assert found["claims"][0].startswith("Does csreft suffer less interference than loreft of its size? Yes: less than")
    assert "Against the same method and size trained alone, csreft loses less than loreft" in found["claims"][1]
    assert found["claims"][2].startswith("loreft trained together is, against loreft alone, worse on oldest and sums")
    numbers = pd.read_csv(tmp_path / "out/matrix.csv")
    assert set(numbers.loc[numbers["row"] == "csreft", "reference"]) == {"loreft_alone", "loreft_each"}
    assert "sums: 0.00 1.00; oldest: 1.00 1.00" in (tmp_path / "out/router.md").read_text()
    assert "200 of 200" in (tmp_path / "out/added.md").read_text()
    assert "| csreft | 2 | 12 |" in (tmp_path / "out/growth.md").read_text()
    for changes, problem in (
        ({"claims": (("csreft", "loreft_alone"),)}, "expected a reference of the row 'loreft_alone'"),
        ({"router": ("loreft",)}, "expected rows with a router in skill_reports, got 'loreft'"),
        ({"growth": ("base", "csreft")}, "expected rows that are trained in skill_reports, got 'base'"),
    ):
        with pytest.raises(UserError, match=problem):
            run(report="it", asked=asked.model_copy(update=changes), settings=settings, **places)
    (tmp_path / "skills/csreft.gates.jsonl").unlink()
    with pytest.raises(
        UserError, match="csreft.gates.jsonl, which the plan names; run 'dvc repro train_csreft@csreft'"
    ):
        run(report="it", asked=asked, settings=settings, **places)
