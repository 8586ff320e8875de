"""What a made-up run says of the papers' claims, and the page that tells it."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline.reporting.claims import Judged, counts, read_claims
from pipeline.reporting.read import read_published
from pipeline.reporting.tables.claims import OWN
from stages import report
from tests.made import PARAMS, PUBLISHED, make_run

LISTED = read_claims(read_published(PUBLISHED))


def judged_of(root: Path, arguments: dict[str, Any]) -> dict[str, Judged]:
    """What the run of a made-up report says, by claim."""
    caught: dict[str, Judged] = {}

    def kept(run: Any, statistics: Any, others: Any = ()) -> Any:
        caught.update({one.claim.id: one for one in statistics.claims})
        return composed(run, statistics, others)

    composed = report.compose
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(report, "compose", kept)
        report.run(**arguments)
    return caught


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Judged]]:
    """A made-up run, reported, with what it says of each claim."""
    root = tmp_path_factory.mktemp("run")
    changes = {"spectra": {"base": "svf"}, "reinforce": {"validation_examples": 100}}
    return root, judged_of(root, make_run(root, changes=changes))


def test_parameters_are_counted_without_routers(whole: tuple[Path, dict[str, Judged]]) -> None:
    small, share = whole[1]["t2-svf-is-small"], whole[1]["csreft-share-of-the-model"]
    assert whole[1]["reft-is-small"].verdict == "not measured"  # whose tables this run has not got
    assert small.verdict == "does not hold" and small.effect.mean == pytest.approx(118_080 / 460_800)
    assert small.effect_text == "0.256 (claimed: at most 0.1)" and small.effect.low is None
    assert share.effect.mean == pytest.approx(55_344 / 134_515_008) and share.verdict == "does not hold"


def test_a_whole_run_is_judged_by_what_it_left(whole: tuple[Path, dict[str, Judged]]) -> None:
    found = whole[1]
    assert list(found) == [one.id for one in LISTED]
    learnt = found["t2-svf-learns"]
    assert len(learnt.lines) == 3 and learnt.verdict in ("holds", "undecided") and learnt.table == "curves"
    assert learnt.effect.mean == pytest.approx(0.3, abs=0.06)  # of made-up curves that rise by 0.02 a step
    named = found["t2-classifier-names-better"]
    assert named.verdict == "holds" and {line.task for line in named.lines} == {"trained", "unseen"}
    nearest = found["t2-nearest-expert-weighs-most"]
    assert nearest.effect.n == 3 and "of 3 searches, by chance 1 of 3" in nearest.details
    top = found["t2-top-components-hold-half"]  # shares that are the root of the part of the rank
    assert top.effect.mean == pytest.approx(0.25, abs=0.01) and top.verdict == "holds"
    assert found["t2-top-components-of-mlps"].verdict == "does not hold"
    assert found["t2-vision-trained"].verdict == "not measured"  # profile eyes measures it
    assert found["t2-first-pass-is-cheap"].reason.startswith("Seconds differ between two equal runs")
    assert found["reft-commonsense-lora"].verdict == "not measured"


def test_the_page_of_claims_is_second_in_the_menu_and_linked_from_the_overview(
    whole: tuple[Path, dict[str, Judged]],
) -> None:
    root, judged = whole
    page = (root / "reports/site/claims.html").read_text()
    menu = re.findall(r'<a href="\.\./([^"]+)"', page.partition("</nav>")[0])
    assert menu[:2] == ["index.html", "site/claims.html"]
    for one in LISTED:
        assert f'<tr id="{one.id}">' in page and one.place in page
    overview = (root / "reports/index.html").read_text()
    metrics = json.loads((root / "reports/metrics.json").read_text())["claims"]
    assert metrics == counts(judged.values()) and sum(metrics.values()) == len(LISTED)
    assert '<a href="site/claims.html">' in overview and f"{metrics['holds']} hold" in overview
    assert "figures/claims.svg" in page and (root / "reports/figures/claims.svg").is_file()
    table = pd.read_csv(root / "reports/tables/claims.csv")
    assert set(table["id"]) == {one.id for one in LISTED}
    measured_here = table[table["run"] == OWN].set_index("id")
    assert set(measured_here.index) == {name for name, one in judged.items() if one.verdict != "not measured"}
    svf = measured_here.loc["t2-svf-improves"]
    assert svf["low"] <= svf["effect"] <= svf["high"] and svf["n"] == 120
    assert svf["verdict"] == judged["t2-svf-improves"].verdict
    assert "SVF expert against Base model" in (root / "reports/tables/table1.md").read_text()


SMALL = {**PARAMS, "tables": {"table1": PARAMS["tables"]["table1"]}}  # settings of a run that is soon reported


def test_without_a_list_of_claims_there_is_no_page(tmp_path: Path) -> None:
    arguments = make_run(tmp_path, examples=5, layers=2, params=SMALL)
    (tmp_path / "papers").mkdir()
    judged_of(tmp_path, {**arguments, "published": tmp_path / "papers"})
    assert not (tmp_path / "reports/site/claims.html").exists()
    assert "claims" not in json.loads((tmp_path / "reports/metrics.json").read_text())


def test_a_claim_added_to_the_list_is_judged_and_shown(tmp_path: Path) -> None:
    arguments = make_run(tmp_path, examples=20, layers=2, params=SMALL)
    papers = tmp_path / "papers"
    papers.mkdir()
    added = {"id": "t2-mine", "paper": "transformer2", "place": "Table 1", "says": "LoRA is better.", "table": "table1"}
    (papers / "claims.yaml").write_text(yaml.safe_dump([{**added, "pairs": [["lora", "base"]]}]))
    assert list(judged_of(tmp_path, {**arguments, "published": papers})) == ["t2-mine"]
    assert "LoRA is better" in (tmp_path / "reports/site/claims.html").read_text()
