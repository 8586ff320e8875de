"""Several processes on one stage: the bytes of one, a sentence when one of them is lost, and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.core import processes
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.config import read_params
from pipeline.core.errors import UserError
from pipeline.core.helper import Read, unwritten
from pipeline.core.stage import Call
from stages import prepare
from tests.graph.code import ROOT
from tests.project import make_project

UNITS = "units: 3"
STEPS = 8  # of a training that is disturbed: it saves its state after each
BARE = {"model": "artifacts/base/model", "train": "data/sums/train.jsonl", "validation": "data/sums/validation.jsonl"}
TRAINING = {"name": "sums-0", "task": "sums", "seed": "0", "factors": "artifacts/svd/base.safetensors", **BARE}
STAGES = {
    "train_svf": {**TRAINING, "row": "svf", "method": "svf", "expert": "{out}/a.safetensors", "curve": "{out}/a.jsonl"},
    "train_supervised": {
        **{**TRAINING, "row": "lora", "method": "lora"},
        **{"expert": "{out}/a.safetensors", "curve": "{out}/a.jsonl"},
    },
    "generate": {
        **{"task": "sums", "model": BARE["model"], "factors": TRAINING["factors"]},
        **{"adapter": "artifacts/experts/svf-sums-0.safetensors", "examples": "data/sums/test.jsonl"},
        "completions": "{out}/a.jsonl",
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose steps have three units."""
    made = tmp_path_factory.mktemp("processes") / "project"
    make_project(made)
    settings = (made / "params.yaml").read_text(encoding="utf-8")
    settings = settings.replace("cache_tokens: 32768", f"cache_tokens: 32768, {UNITS}")
    settings = settings.replace("reinforce: {steps: 2, batch: 2,", f"reinforce: {{steps: {STEPS}, batch: 5,")
    assert UNITS in settings
    assert f"steps: {STEPS}" in settings
    (made / "params.yaml").write_text(settings, encoding="utf-8")
    data = prepare.TaskData.read(read_params(made / "params.yaml"), {"task": "sums"})
    prepare.run(task="sums", data=data, raw=made / "raw", examples=made / "data/sums")
    return made


def begun(folder: Path, stage: str, out: str, count: int) -> subprocess.Popen[str]:
    """A stage, run bare by so many processes."""
    (folder / out).mkdir(exist_ok=True)
    words = [word.format(out=out) for key, value in STAGES[stage].items() for word in (f"--{key}", value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), processes.PROCESSES: str(count), "SELFADAPT_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}", *words],
        **{"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
    )


def outputs(folder: Path, stage: str, out: str, count: int) -> dict[str, bytes]:
    """What a stage writes."""
    process = begun(folder, stage, out, count)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return {path.name: path.read_bytes() for path in sorted((folder / out).iterdir())}


@pytest.mark.parametrize("stage", STAGES)
def test_several_processes_give_the_bytes_of_one(stage: str, folder: Path) -> None:
    alone = outputs(folder, stage, f"{stage}-1", 1)
    assert alone
    for count in (2, 3):
        assert outputs(folder, stage, f"{stage}-{count}", count) == alone, f"{count} processes"


def test_a_lost_process_is_one_sentence_and_the_rerun_ends_with_the_same_bytes(folder: Path) -> None:
    undisturbed = outputs(folder, "train_svf", "train_svf-1", 1)
    process = begun(folder, "train_svf", "lost", 2)
    checkpoints = folder / ".selfadapt/checkpoints"
    helper = None
    while helper is None or not list(checkpoints.glob("*/*.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        children = psutil.Process(process.pid).children(recursive=True)
        helper = next((one for one in children if processes.HELPER in " ".join(cmdline(one))), None)
        time.sleep(0.02)
    helper.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    if process.returncode != 0:  # else it was killed after its last unit
        assert process.returncode == 1
        assert "expected 2 processes to work on this stage together, but one has gone" in said
        assert "Traceback" not in said
        assert not list((folder / "lost").iterdir())
    assert outputs(folder, "train_svf", "lost", 2) == undisturbed


def cmdline(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def test_no_process_outlives_the_stage(folder: Path) -> None:
    process = begun(folder, "train_svf", "killed", 3)
    helpers: list[psutil.Process] = []
    while len(helpers) < 2:
        assert process.poll() is None, process.communicate()[0]
        helpers = [one for one in psutil.Process(process.pid).children(recursive=True) if len(cmdline(one)) > 1]
        time.sleep(0.05)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(helpers, timeout=20)
    assert not alive


def test_units_are_even_and_none_is_empty() -> None:
    assert [list(part) for part in processes.parts(range(7), 3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [list(part) for part in processes.parts(range(2), 5)] == [[0], [1]]
    assert processes.parts([], 4) == [[]]
    assert [list(processes.Group(rank, 3).own(7)) for rank in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_number_of_processes_has_to_be_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.PROCESSES, text)
    with pytest.raises(UserError, match="expected SELFADAPT_PROCESSES to be a number of processes from 1 on"):
        processes.joined(4)


def test_a_further_process_writes_nothing_that_counts(tmp_path: Path) -> None:
    outs = (Path("a/b.safetensors"), Path("c"))
    kept = Checkpoints(tmp_path / "kept")
    arguments = {"expert": outs[0], "many": [outs[1], Path("in")], "checkpoints": kept, "seed": 3}
    call = unwritten(Call("x", dict, arguments, (Path("in"),), outs), tmp_path / "own")
    assert call.arguments["expert"].parent == tmp_path / "own"
    assert call.arguments["many"][1] == Path("in")
    assert isinstance(call.arguments["checkpoints"], Read)
    call.arguments["checkpoints"].within("part").save("x", {}, {})
    call.arguments["checkpoints"].clear()
    assert not kept.folder.exists()


def test_a_process_that_does_not_begin_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.PROCESSES, "3")
    monkeypatch.setattr(processes, "HELPER", "pipeline.core.nobody")
    monkeypatch.setattr(processes, "command", ["train_svf"])
    monkeypatch.setattr(processes, "_helpers", [])
    with pytest.raises(UserError, match=r"one did not begin \(exit code 1: .*No module named pipeline.core.nobody"):
        processes.joined(3)
