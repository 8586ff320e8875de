"""GPUs lent to stages, with as many of them as a test says there are."""

import os
import threading
from pathlib import Path

import pytest

from pipeline.flow import gpus, run
from pipeline.flow.run import Graph, Run
from tests.unit.flow.toy import until

SETTINGS = "compute: {device: cuda, gpus: 2}\n"


def test_the_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "3,GPU-ab")
    assert gpus.here() == ["3", "GPU-ab"]
    monkeypatch.setenv(gpus.VISIBLE, "")
    assert gpus.here() == []
    monkeypatch.delenv(gpus.VISIBLE)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: one (UUID: GPU-a)'\necho 'GPU 1: two'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert gpus.here() == ["0", "1"]


def test_a_stage_asks_for_the_gpus_of_its_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    assert gpus.asked_for(params) == 0
    params.write_text("compute: {device: cpu}\n")
    assert gpus.asked_for(params) == 0
    params.write_text("compute: {device: cuda}\n")
    assert gpus.asked_for(params) == 1
    params.write_text(SETTINGS)
    monkeypatch.setenv("SELFADAPT_PROCESSES", "2")
    assert gpus.asked_for(params) == 4


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """A run on a machine with four GPUs, of stages that want two each, and of one that computes nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(gpus.VISIBLE, "0,1,2,3")
    Path("params.yaml").write_text(SETTINGS)
    graph = Graph({name: [] for name in "abcd"}, frozenset("abcd"), computing=frozenset("abc"))
    return Run(graph, jobs=4, tell=lambda news: None, environment={})


def test_no_two_stages_have_the_same_gpu(four: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    go_on = threading.Event()

    def stage(children: object, command: list[str], *, environment: dict[str, str], **_: object) -> tuple[int, str]:
        seen[command[-1]] = environment.get(gpus.VISIBLE, "none set")
        go_on.wait(60)
        return 0, ""

    monkeypatch.setattr(run, "run_by_dvc", stage)
    threads = [threading.Thread(target=four.bring_up_to_date, args=(name,), kwargs={"parent": ""}) for name in "abcd"]
    for thread in threads:
        thread.start()
        name = "abcd"[threads.index(thread)]
        if name != "c":
            until(lambda name=name: name in seen, seconds=20)
    assert seen == {"a": "0,1", "b": "2,3", "d": "none set"}  # c waits
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert seen["c"] in ("0,1", "2,3")


def test_a_run_that_ends_waits_for_no_gpu(four: Run) -> None:
    with four.gpus.lent(3, lambda: False) as lent, four.gpus.lent(2, lambda: True) as none:
        assert (lent, none) == (["0", "1", "2"], [])
    with four.gpus.lent(9, lambda: False) as lent:
        assert lent == ["0", "1", "2", "3"]  # all there are: the stage itself says what it lacks
