"""The page that compares two commits, on a made-up run in a git repository of its own."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from pipeline.evaluation.intervals import Estimate
from pipeline.reporting import commits
from stages import report
from tests.made import make_run


def git(*words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that is committed, and then made again with an SVF expert that is always right on sums."""
    folder = tmp_path_factory.mktemp("made")
    arguments = make_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report.run(**arguments)
        git("init", "-q")
        git("add", "reports", "params.yaml")
        git("commit", "-qm", "the first run")
        path = arguments["scores"] / "sums-svf-0.parquet"
        pd.read_parquet(path).assign(correct=True).to_parquet(path)
        report.run(**arguments)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("threads: 2", "threads: 4"))
    return folder


@pytest.fixture
def history(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the test stands."""
    folder = tmp_path / "history"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def changed(row: str, task: str) -> commits.Change:
    found = commits.changes(commits.read("HEAD"), commits.read(None))["table1"]
    return next(one for one in found if (one.row, one.task) == (row, task))


def test_the_same_prompts_are_compared_one_by_one(history: Path) -> None:
    one = changed("svf", "sums")
    assert one.paired and one.verdict == "better" and one.before and one.after and one.difference
    assert one.difference.mean == pytest.approx(one.after["mean"] - one.before["mean"], abs=1e-6)
    same = changed("base", "sums")
    assert same.paired and same.difference == Estimate(0.0, 0.0, 0.0, 40) and same.verdict == "unchanged"
    mean = changed("svf", "mean_over_tasks")
    assert mean.paired and mean.difference and mean.difference.mean == pytest.approx(one.difference.mean / 3, abs=1e-6)


def test_without_the_answers_the_two_intervals_are_all_there_is(history: Path) -> None:
    shutil.rmtree(history / "reports/site")
    one = changed("svf", "sums")
    assert not one.paired and one.difference
    assert one.difference.high - one.difference.low > 0
    assert not changed("svf", "mean_over_tasks").paired


def test_other_prompts_are_not_paired(history: Path) -> None:
    path = history / "reports/site/data/sums.js"
    path.write_text(path.read_text().replace("sums 0: is", "sums 0: was"))
    assert not changed("svf", "sums").paired
    assert changed("svf", "oldest").paired


def test_independent_intervals_add_as_squares() -> None:
    one = {"mean": 0.5, "low": 0.47, "high": 0.53, "n": 100}
    other = {"mean": 0.6, "low": 0.56, "high": 0.64, "n": 50}
    assert commits.independent(one, other) == pytest.approx((0.1, 0.05, 0.15, 50))


def test_the_page_shows_the_numbers_and_the_settings_that_differ(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commits.main([])
    assert "the first run against the files as they are" in capsys.readouterr().out
    page = re.sub(r"\s+", " ", (history / "reports/compare.html").read_text())
    assert '<th scope="row">compute.threads</th><td>2</td><td>4</td>' in page
    assert '<span class="change better">better</span>' in page
    commits.main(["HEAD", "HEAD"])
    page = (history / "reports/compare.html").read_text()
    assert "None: params.yaml is the same in both." in page and '"change better"' not in page


def test_what_is_new_stands_without_a_difference(history: Path) -> None:
    path = history / "reports/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["table1"]["ia3"] = metrics["table1"].pop("lora")
    path.write_text(json.dumps(metrics))
    assert changed("ia3", "sums").before is None and changed("ia3", "sums").difference is None
    assert changed("lora", "sums").after is None
    commits.main([])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nothing"], "expected a commit of this folder's git history, got 'nothing'; see 'git log'"),
        (["--help"], "usage: python -m pipeline.reporting.commits"),
        (["HEAD", "HEAD", "HEAD"], "usage: python -m pipeline.reporting.commits"),
    ],
)
def test_a_mistake_is_one_sentence(history: Path, argv: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(said)):
        commits.main(argv)
    assert not (history / "reports/compare.html").exists()


def test_a_folder_without_git_or_report_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="expected a commit of this folder's git history, got 'HEAD'"):
        commits.main([])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="expected git, which is not there"):
        commits.main([])


def test_a_broken_report_is_one_sentence(history: Path) -> None:
    (history / "reports/metrics.json").write_text("{")
    with pytest.raises(SystemExit, match="expected the report of the files as they are to be readable"):
        commits.main([])
    (history / "reports/metrics.json").unlink()
    with pytest.raises(SystemExit, match="run 'dvc repro report'"):
        commits.main([])
