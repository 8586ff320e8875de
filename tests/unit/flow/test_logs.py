"""The tools that draw a training while it runs: asked for, or silent."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.flow import logs
from pipeline.flow.reporter import Watched

STAGE = "train_svf@sums-0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (logs.WANTED, logs.EXPERIMENT, "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_nothing_is_logged_where_nothing_asks_for_it(folder: Path) -> None:
    assert logs.asked_for(STAGE) == []
    assert not list(folder.iterdir())


def test_a_tool_that_is_not_there_is_a_sentence_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.WANTED, "on")
    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"expected the package tensorboard.*pip install \"selfadapt\[log\]\""):
        logs.asked_for(STAGE)
    monkeypatch.setenv(logs.WANTED, "off")
    monkeypatch.setenv(logs.EXPERIMENT, "0" * 40)
    assert logs.asked_for(STAGE) == []  # an experiment runs without DVCLive as well


class Broken:
    """A logger whose disk is full."""

    def __init__(self) -> None:
        self.asked = 0

    def log(self, loop: str, step: int, values: Mapping[str, float]) -> None:
        self.asked += 1
        raise OSError("no space left")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_logger_that_fails_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Broken()
    monkeypatch.setattr(logs, "asked_for", lambda stage: [broken])
    watched = Watched(STAGE)
    with watched.bar("train (reinforce-0)", 3) as bar:
        for _ in range(3):
            bar.advance(note="0.100, validation 0.500")
    watched.close()
    assert broken.asked == 1
    assert capsys.readouterr().err == "note: no longer logged, OSError: no space left\n"


def test_dvclive_has_a_file_of_each_number_for_an_experiment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dvclive", reason="pip install '.[log]' to log what an experiment trains")
    monkeypatch.setenv(logs.EXPERIMENT, "0" * 40)
    (logger,) = logs.asked_for(STAGE)
    for step in (1, 2):
        logger.log("reinforce-0.02", step, {"reward": step / 4, "best_validation": 0.5})
    logger.close()
    file = folder / "dvclive/train_svf/sums-0/plots/metrics/reinforce-0.02/reward.tsv"
    assert file.read_text().split() == ["step", "reward", "1", "0.25", "2", "0.5"]


def test_tensorboard_has_the_numbers_of_each_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install '.[log]' to write TensorBoard's files")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv(logs.WANTED, "on")
    for run in range(2):  # the second replaces the first
        (logger,) = logs.asked_for(STAGE)
        for step in (1, 2):
            logger.log("next_token", step, {"loss": step / 2 + run})
        logger.close()
    (file,) = (folder / logs.TENSORBOARD / "train_svf/sums-0").iterdir()
    read = EventAccumulator(str(file)).Reload()
    assert [(one.step, one.value) for one in read.Scalars("next_token/loss")] == [(1, 1.5), (2, 2.0)]
