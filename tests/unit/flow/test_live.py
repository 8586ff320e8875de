"""What a running stage says of itself: the file of its loops, and the view of a run that reads it."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.core import progress
from pipeline.flow import learning, live
from pipeline.flow.reporter import Watched
from pipeline.flow.run import Graph, Outcome
from selfadapt import watching

STAGE = "train_svf@sums-0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    return tmp_path


@contextmanager
def watched(stage: str) -> Iterator[Watched]:
    """A stage's reporter, in the place of the usual one."""
    before, reporter = progress._reporter, Watched(stage)
    progress.report_to(reporter)
    try:
        yield reporter
    finally:
        progress.report_to(before)
        reporter.close()


@pytest.mark.parametrize(
    ("note", "numbers"),
    [
        ("0.312, validation 0.480", {"train": 0.312, "validation": 0.48}),
        ("-1.250, validation 0.000", {"train": -1.25, "validation": 0.0}),
        ("best 0.75", {"best": 0.75}),
        ("1e-05", {"train": 1e-05}),
        ("", {}),
        ("loads the model", {}),
        ("0.3, and words", {}),
    ],
)
def test_a_note_is_read_as_numbers_or_not_at_all(note: str, numbers: dict[str, float]) -> None:
    assert live.measures(note) == numbers


def test_what_a_stage_tells_is_read_while_it_runs_and_gone_after_it(folder: Path) -> None:
    with watched(STAGE):
        assert live.read(STAGE) is None
        with progress.bar("screen prompts", 4) as bar:
            bar.advance(2)
            assert live.read(STAGE) == live.Loop(STAGE, "screen prompts", 4, 2)
        with progress.bar("train (reinforce-0.02)", 3) as bar:
            bar.advance(note="0.100, validation 0.400")
            bar.advance(note="0.500, validation 0.400")
        loop = live.read(STAGE)
        assert loop is not None and (loop.done, loop.total, loop.learns) == (2, 3, True)
        assert loop.line == "train (reinforce-0.02): 2 of 3, reward 0.500, best validation 0.400"
        assert loop.drawing == "▁█"
    assert live.read(STAGE) is None and not live.path_of(STAGE).exists()


def test_a_second_training_of_a_sweep_has_a_curve_of_its_own() -> None:
    with watched(STAGE):
        for note in ("0.100", "0.200"):
            with progress.bar("train (reinforce-0.02)", 3) as bar:
                bar.advance(note=note)
                loop = live.read(STAGE)
                assert loop is not None and loop.curve == ((1, {"train": float(note)}),)


def test_a_line_that_is_being_written_is_left_for_later(folder: Path) -> None:
    path = live.path_of(STAGE)
    path.parent.mkdir(parents=True)
    whole = json.dumps({"loop": "prompts", "total": 9, "done": 4, "values": {}})
    path.write_text(f'{whole}\n{{"loop": "pro')
    assert live.read(STAGE) == live.Loop(STAGE, "prompts", 9, 4)


def test_what_learns_from_answers_has_a_loss() -> None:
    assert live.told("train_supervised@lora-sums-0", {"train": 1.5, "validation": 1.25}) == (
        "loss 1.500, best validation 1.250"
    )
    assert live.told("fit_classifier@classifier-0", {"train": 0.5}) == "reward 0.500"


def viewed(console: Console) -> watching.View:
    """The view of a run of three stages, the second of which runs."""
    view = watching.View(console, Path("nowhere"), 2)
    view.tell(Graph({"prepare": [], STAGE: ["prepare"], "score": [STAGE]}, frozenset(["prepare"])))
    view.tell("prepare")
    view.tell(Outcome("prepare", "done", 2.0))
    view.tell(STAGE)
    return view


def test_piped_a_run_is_plain_lines_and_says_what_is_learnt_once() -> None:
    text = io.StringIO()
    view = viewed(Console(file=text, width=20))
    with watched(STAGE), progress.bar("train (reinforce-0)", 8) as bar:
        bar.advance(note="0.250, validation 0.500")
        told = [f"  {STAGE}: train (reinforce-0): 1 of 8, reward 0.250, best validation 0.500"]
        assert view.lines() == told
        assert view.lines() == []  # nothing new
        bar.advance(note="0.375, validation 0.500")
        assert "2 of 8, reward 0.375" in view.lines()[0]
    view.tell(Outcome("score", "failed", 1.0, "expected [a, b], got [/] (.selfadapt/logs/score.log)"))
    assert text.getvalue().splitlines() == [
        "· prepare  (0 of 3 stages)",
        "✓ prepare  2.0 s",
        f"· {STAGE}  (1 of 3 stages)",
        "✗ score  1.0 s  expected [a, b], got [/] (.selfadapt/logs/score.log)",
    ]
    assert view.counts["done"] == 1


def test_on_a_terminal_the_view_has_each_stage_with_its_reward_and_its_course() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    view = viewed(console)
    with watched(STAGE), progress.bar("train (reinforce-0)", 8) as bar:
        for step in range(4):
            bar.advance(note=f"{step / 4:.3f}, validation 0.500")
        with console.capture() as shown:
            console.print(view.drawn())
    lines = [line.rstrip() for line in shown.get().splitlines()]
    assert lines[0] == "1 of 3 stages"
    assert re.fullmatch(rf"{STAGE} +0:00 +\S+ +4 of 8 +reward 0.750, best validation 0.500 +▁▃▆█", lines[1])


def test_a_curve_is_drawn_into_the_page_itself() -> None:
    points = [{"step": step, "reward": step / 2 - 1, "best validation": 0.5} for step in range(1, 4)]
    page = learning.page("train_svf@sums-0", points)
    assert page.splitlines()[2] == "Step 3: reward 0.500, best validation 0.500."
    assert "| 2 | 0.0000 | 0.5000 |" in page
    assert re.findall(r"\]\((data:image/svg\+xml;base64,[\w+/=]+)\)", page) == [learning.picture(points)]
    assert "http" not in page
