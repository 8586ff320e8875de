"""A toy project: a graph of stages that add one to a number, quickly, slowly or not at all."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGE = '''
"""A toy stage."""
import os
import sys
import time
from pathlib import Path

from pipeline.core.config import Section
from pipeline.core.errors import UserError
from pipeline.core.progress import bar, show_table, step
from pipeline.core.stage import In, Out


class Toy(Section, at="toy"):
    seconds: float


def run(*, mode: str, toy: Toy, source: In, result: Out) -> dict:
    """Read a number, wait, write it plus one."""
    with step("read"):
        number = int(source.read_text())
        Path(f"pid-{result.name}").write_text(str(os.getpid()))
    with step("work"):
        with bar("train (toy)", 4) as drawn:
            for part in range(4):
                time.sleep((30.0 if mode == "slow" else toy.seconds) / 4)
                drawn.advance(note=f"{part / 4:.3f}, validation 0.500")
        if mode == "bad":
            raise UserError("expected a good mode, got 'bad'; write mode: good")
        if mode == "broken":
            raise ZeroDivisionError("division by zero")
    Path("share").write_text(os.environ.get("SELFADAPT_THREADS", "all"))
    result.write_text(f"{number + 1}\\n")
    show_table("numbers", [{"in": number, "out": number + 1}])
    return {"number": number + 1, "prefect": "prefect" in sys.modules, "torch": "torch" in sys.modules}
'''
GRAPH = """
stages:
  toy:
    foreach: ${toys}
    do:
      cmd: python -m pipeline.flow toy@${key} --mode ${item.mode} --source ${item.source} --result ${key}
      deps: [stages/toy.py, "${item.source}"]
      params: [toy]
      outs: ["${key}"]
"""
PARAMS = """
profile: toys
toy: {seconds: 0.1}
toys:
  a: {mode: good, source: zero}
  b: {mode: bad, source: zero}
  c: {mode: good, source: a}
  d: {mode: good, source: b}
  again: {mode: good, source: zero}
"""

RUN = """
import sys
from pipeline.flow.run import run_graph

run_graph(sys.argv[1:], jobs=2, tell=lambda news: sys.stdout.write(f"{news}\\n"))
"""


class Project:
    """A toy project in a folder, and what a person would type there. recording: SELFADAPT_PREFECT, "on" or "off"."""

    def __init__(self, folder: Path, root: Path, recording: str) -> None:
        self.folder = folder
        (folder / "stages").mkdir(parents=True)
        (folder / "stages/toy.py").write_text(STAGE)
        (folder / "dvc.yaml").write_text(GRAPH)
        (folder / "params.yaml").write_text(PARAMS)
        (folder / "zero").write_text("0\n")
        with socket.socket() as probe:  # so that a server on the usual port is left alone
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
            "PYTHONPATH": f"{folder}{os.pathsep}{root}",
            "SELFADAPT_PREFECT": recording,
            "PREFECT_SERVER_API_PORT": str(port),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=folder, check=True, env=self.environment)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``python`` with these arguments."""
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_stage(self, name: str, mode: str, stage: str = "toy") -> subprocess.Popen[str]:
        """Start the stage ``<stage>@<name>``."""
        words = ("--mode", mode, "--source", "zero", "--result", name)
        return self.start("-m", "pipeline.flow", f"{stage}@{name}", *words)

    def stage(self, name: str, mode: str, stage: str = "toy") -> tuple[int, str]:
        """Run a stage; its exit code, and its words on stderr."""
        process = self.start_stage(name, mode, stage)
        _, said = process.communicate(timeout=120)
        return process.returncode, said

    def start_graph(self, *targets: str) -> subprocess.Popen[str]:
        """Start a run of the graph, two stages side by side, with its outcomes on stdout, one a line."""
        return self.start("-u", "-c", RUN, *targets)

    def pid(self, name: str) -> int:
        """The number of the process that the stage ``toy@<name>`` runs in, once it does."""
        path = self.folder / f"pid-{name}"
        until(lambda: path.exists() and path.read_text())
        return int(path.read_text())

    def record(self, name: str, stage: str = "toy") -> Any:
        """What a stage left of its run."""
        return json.loads((self.folder / f".selfadapt/runs/{stage}@{name}.json").read_text())

    def select(self, kind: str) -> Any:
        """What the server knows: ``flow_runs``, ``task_runs`` or ``artifacts``."""
        return self.post(f"{kind}/filter", {})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the server."""
        port = json.loads((self.folder / ".selfadapt/prefect/server.json").read_text())["port"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def flow_run(self, name: str) -> dict[str, Any]:
        """The one run of this name, once it has ended (the recorder may be behind, and the server still starting)."""

        def ended() -> list[dict[str, Any]]:
            if not (self.folder / ".selfadapt/prefect/server.json").exists():
                return []
            runs = [run for run in self.select("flow_runs") if run["name"] == name]
            return runs if runs and runs[0]["state_type"] not in ("RUNNING", "PENDING") else []

        (run,) = until(ended, pause=0.3)
        return run


def until(condition: Callable[[], Any], *, seconds: float = 120, pause: float = 0.02) -> Any:
    """Wait for a condition; what it gave when it was true at last."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(pause)
    return value


def gone(pid: int) -> bool:
    """Whether a process has ended, though nobody may have asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
