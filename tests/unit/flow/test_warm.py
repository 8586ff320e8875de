"""Stages forked from a process that has the libraries loaded: as if each had been started by itself."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.flow import warm
from tests.unit.flow.toy import gone, until

pytestmark = pytest.mark.skipif(not warm.possible(), reason="stages start warm on Linux without an NVIDIA GPU")

TOY = """
import os, sys, time
from pathlib import Path
from pipeline.flow import warm

warm.ANSWER_SECONDS = 5.0

def main(argv):
    word = {word!r}
    if argv[0] == "say":
        loaded = [name for name in ("torch", "prefect") if name in sys.modules]
        print(word, os.environ.get("MARK"), sys.stdin.read(), *loaded)
        print("aside", file=sys.stderr)
        return 0
    if argv[0] == "mark":
        Path("marked").touch()
        return 0
    if argv[0] == "fail":
        raise RuntimeError("broken")
    if argv[0] == "wait":
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            Path("pid").write_text(str(os.getpid()))
            time.sleep(60)
        finally:
            Path("unwound").touch()
    return int(argv[0])

if __name__ == "__main__":
    code = warm.run("pipeline.flow.toy", sys.argv[1:])
    sys.exit(77 if code is None else code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project of its own that has ``warm`` and one module to be run, and nothing else of ours."""
    path = tmp_path_factory.mktemp("warm")
    room = path / "pipeline" / "flow"
    room.mkdir(parents=True)
    for package in (path / "pipeline", room):
        (package / "__init__.py").touch()
    shutil.copy(warm.__file__, room)
    (room / "toy.py").write_text(TOY.format(word="hello"))
    return path


def stage(folder: Path, *argv: str, **changes: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.flow.toy", *argv],
        cwd=folder,
        env=os.environ | {"SELFADAPT_WARM": "on", "SELFADAPT_PREFECT": "off"} | changes,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def server_of(folder: Path) -> int:
    """The process that forks the stages of ``stage``."""
    (server,) = [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder) and warm.MODULE in (process.info["cmdline"] or [])
    ]
    return server


def test_streams_environment_and_exit_code_are_the_stages_own(folder):
    out, err = (process := stage(folder, "say", MARK="here")).communicate("typed")
    assert (process.returncode, out, err) == (0, "hello here typed torch\n", "aside\n")
    assert stage(folder, "3").wait() == 3
    _, err = (process := stage(folder, "fail")).communicate()
    assert process.returncode == 1 and err.endswith("RuntimeError: broken\n")


def test_the_process_that_asks_for_a_stage_loads_no_library_itself():
    code = (
        "import sys; from pipeline.flow import warm; warm.run = lambda module, argv: 3\n"
        "from pipeline.flow.__main__ import main\n"
        "print(main(['toy']), [name for name in ('torch', 'transformers', 'prefect', 'pandas') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "3 []\n"


def test_code_that_was_changed_meanwhile_is_what_runs(folder):
    assert stage(folder, "say").communicate("")[0].startswith("hello")
    (folder / "pipeline" / "flow" / "toy.py").write_text(TOY.format(word="goodbye"))
    assert stage(folder, "say").communicate("")[0].startswith("goodbye")


@pytest.mark.parametrize(("sent", "code", "unwound"), [(signal.SIGTERM, 143, True), (signal.SIGKILL, -9, False)])
def test_a_signal_to_the_process_that_was_started_reaches_the_stage(folder, sent, code, unwound):
    for name in ("pid", "unwound"):
        (folder / name).unlink(missing_ok=True)
    process = stage(folder, "wait")
    until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    pid = int((folder / "pid").read_text())
    assert pid != process.pid
    process.send_signal(sent)
    assert process.wait(60) == code
    until(lambda: gone(pid))
    assert (folder / "unwound").exists() == unwound


def test_a_stage_that_is_killed_ends_what_was_started_for_it(folder):
    (folder / "pid").unlink(missing_ok=True)
    process = stage(folder, "wait")
    until(lambda: (folder / "pid").exists() and (folder / "pid").read_text())
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    assert process.wait(60) == warm.KILLED


def test_what_libraries_read_from_the_environment_gets_a_server_of_its_own(folder, monkeypatch):
    monkeypatch.chdir(folder)
    key = warm._key()
    monkeypatch.setenv("UNRELATED", "1")
    assert warm._key() == key
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert warm._key() != key


def test_what_records_a_stage_is_loaded_in_a_server_of_its_own(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SELFADAPT_PREFECT", "off")
    key, loaded = warm._key(), warm._libraries()
    monkeypatch.setenv("SELFADAPT_PREFECT", "on")
    assert warm._key() != key
    assert set(warm._libraries()) - set(loaded) == set(warm.RECORDING)


def test_where_no_server_comes_up_the_stage_is_run_without_one(folder):
    assert stage(folder, "0", SELFADAPT_WARM="off").wait() == 77
    (folder / "torch.py").write_text("raise ImportError('broken')")  # what a server would load
    try:
        assert stage(folder, "0", OMP_NUM_THREADS="3").wait() == 77
    finally:
        (folder / "torch.py").unlink()


def test_a_server_that_is_stopped_keeps_no_stage_waiting_and_is_replaced(folder):
    assert stage(folder, "0").wait() == 0
    server = server_of(folder)
    os.kill(server, signal.SIGSTOP)
    try:
        assert stage(folder, "0").wait(60) == 77
        until(lambda: gone(server))
        assert stage(folder, "0").wait() == 0
    finally:
        if not gone(server):
            os.kill(server, signal.SIGKILL)


def test_a_stage_that_was_given_up_does_not_begin(folder, monkeypatch):
    """Its server was stopped for longer than the one who asked would wait, and goes on then."""
    (folder / "unwound").unlink(missing_ok=True)
    assert stage(folder, "0").wait() == 0
    server = server_of(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SELFADAPT_WARM", "on")
    monkeypatch.setenv("SELFADAPT_PREFECT", "off")
    monkeypatch.setattr(warm, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(warm, "_kill_server", lambda connection: None)
    os.kill(server, signal.SIGSTOP)
    assert warm.run("pipeline.flow.toy", ["mark"]) is None
    os.kill(server, signal.SIGCONT)
    assert stage(folder, "0").wait() == 0  # it answers in turn
    assert not (folder / "marked").exists()


def test_a_server_that_nobody_asks_ends(folder):
    code = "import sys; from pipeline.flow import warm; warm.IDLE_SECONDS = 0.1; warm.LIBRARIES = warm.RECORDING = (); "
    process = subprocess.run([sys.executable, "-c", f"{code} sys.exit(warm.serve('alone'))"], cwd=folder, timeout=20)
    assert process.returncode == 0
    assert not (folder / warm.FOLDER / "alone").exists()
