"""No process that a run has started outlives it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.flow import children
from pipeline.flow.children import Children
from tests.unit.flow.toy import gone, until

# A shell with a process below it, as DVC has one; what ignores the interrupt is killed.
BELOW = "trap '' INT; sleep 60 & echo $! > below.part; mv below.part below; wait; wait"
RUN = f"""
import os
from pathlib import Path
from pipeline.flow.children import Children
running = Children()
running.run(["sh", "-c", {BELOW!r}], log=Path("log"), environment=os.environ, waiting=lambda pid: True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def below() -> int:
    """The process below the one that was started, once it is there."""
    until(Path("below").exists)
    return int(Path("below").read_text())


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_run_has_started_ends(folder: Path, root: Path, sent: signal.Signals) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN], env=os.environ | {"PYTHONPATH": str(root)})
    pid = below()
    run.send_signal(sent)
    run.wait()
    until(lambda: gone(pid), seconds=10)


def test_the_stage_of_a_dvc_that_is_killed_does_not_go_on(folder: Path) -> None:
    running = Children()
    command = ["sh", "-c", f"echo $$ > top; {BELOW}"]
    threading.Thread(target=lambda: (below(), os.kill(int(Path("top").read_text()), signal.SIGKILL))).start()
    assert running.run(command, log=Path("log"), environment=os.environ, waiting=lambda pid: True) == -signal.SIGKILL
    until(lambda: gone(below()), seconds=10)
    running.close()


def test_what_is_ended_may_clean_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Children()
    code = (
        "import time\nfrom pathlib import Path\n"
        "try:\n Path('below').write_text('0')\n time.sleep(60)\n"
        "finally:\n time.sleep(0.3)\n Path('unwound').touch()"
    )
    threading.Thread(target=lambda: (below(), running.end())).start()
    code_ = running.run([sys.executable, "-c", code], log=Path("log"), environment=os.environ, waiting=lambda pid: True)
    assert code_ == -signal.SIGINT
    assert Path("unwound").exists()
    running.close()


def test_a_child_that_nobody_waits_for_any_more_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "LOOK_SECONDS", 0.05)
    running = Children()
    asked: list[int] = []

    def waiting(pid: int) -> bool:
        asked.append(pid)
        return len(asked) < 3

    assert running.run(["sleep", "60"], log=Path("log"), environment=os.environ, waiting=waiting) == -signal.SIGKILL
    assert len(set(asked)) == 1
    running.close()


def test_a_guard_that_was_killed_ends_no_run(folder: Path) -> None:
    running = Children()
    for _ in range(2):
        said = running.run(["echo", "here"], log=Path("log"), environment=os.environ, waiting=lambda pid: True)
        assert (said, Path("log").read_text()) == (0, "here\n")
        assert running._guard is not None
        running._guard.kill()
        running._guard.wait()
    running.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the signal for it")
def test_what_must_not_outlive_its_parent_dies_with_it(folder: Path, root: Path) -> None:
    below_it = "import os, time; open('below', 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import subprocess; from pipeline.flow.children import python_until_we_die as command\n"
        f"subprocess.run(command('-c', {below_it!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(root)})
    until(lambda: Path("below").exists() and Path("below").read_text())
    parent.kill()
    parent.wait()
    until(lambda: gone(int(Path("below").read_text())), seconds=10)
