"""The process that keeps the project's own Prefect server up for as long as somebody uses it.

Beside the server, the folder ``reports`` is served, because a page of the server may not link to a file. A run that
somebody asks for again in the UI is taken up here, as there is no worker: DVC runs its stage once more.

    python -m pipeline.flow.keeper <port> <port of the report>
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.flow import identity, living, server
from pipeline.flow.children import python_until_we_die

IDLE_SECONDS = 300
LOOK_SECONDS = 3  # between two looks at what somebody asked for again
REPORTS = Path("reports")


class Report(SimpleHTTPRequestHandler):
    """The files of ``reports``, whatever replaces that folder meanwhile; nothing is logged."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory=str(REPORTS))

    def send_head(self) -> Any:
        """Begin to answer. A link that leads out of the folder is not followed."""
        if not Path(self.translate_path(self.path)).resolve().is_relative_to(REPORTS.resolve()):
            return self.send_error(404)
        return super().send_head()

    def log_message(self, *arguments: Any) -> None:
        pass


class Retries:
    """Stages that somebody asked for again in the UI, and runs whose processes have died."""

    def __init__(self, api: str) -> None:
        self._api, self._looked = api, 0.0
        self._running: dict[str, subprocess.Popen[str]] = {}

    def look(self) -> None:
        """Start what is asked for, and say what became of that which did not come to run, or was killed."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(OSError, ValueError):  # the server is busy: the next look will tell
            living.bury(self._api)
            asked = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            for run in server.ask(f"{self._api}/flow_runs/filter", asked):
                self._set_state(run["id"], "PENDING", "taken up")
                self._running[run["id"]] = self._start(run["name"], run["id"])
            for run_id in [run_id for run_id, process in self._running.items() if process.poll() is not None]:
                _, said = self._running.pop(run_id).communicate()
                if server.ask(f"{self._api}/flow_runs/{run_id}")["state_type"] == "PENDING":
                    self._set_state(run_id, "FAILED", f"the stage did not start: {' '.join(said.split())[-400:]}")

    def _start(self, stage: str, run_id: str) -> "subprocess.Popen[str]":
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        kept = {name: value for name, value in os.environ.items() if name != server.PARENT}
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--single-item", "--force", "--", stage],
            env=kept | {"PATH": search, server.AGAIN: f"{stage}={run_id}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _set_state(self, run_id: str, kind: str, message: str) -> None:
        state = {"type": kind, "message": message}
        server.ask(f"{self._api}/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def keep(port: int, report_port: int) -> None:
    """Run the project's server, and one of the report, until nobody has used it for a while."""
    with contextlib.suppress(OSError):  # the port was taken meanwhile: the links will not work, all else does
        report = ThreadingHTTPServer(("127.0.0.1", report_port), Report)
        threading.Thread(target=report.serve_forever, daemon=True).start()
    identity.complete()
    home = server.FOLDER.resolve()
    api = server.api_at(port)
    own = {**server.QUIET, "PREFECT_HOME": str(home), "PREFECT_API_URL": api, "PREFECT_UI_API_URL": api}
    command = python_until_we_die("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    prefect = subprocess.Popen(command, env=server.settings(os.environ, api) | own, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    used = home / "used"
    retries = Retries(api)
    try:
        # Gone with the project folder, too: then there is nothing left to record into.
        while prefect.poll() is None and used.exists() and time.time() - used.stat().st_mtime < IDLE_SECONDS:
            retries.look()
            time.sleep(1)
    finally:
        prefect.terminate()
        try:
            prefect.wait(15)
        except subprocess.TimeoutExpired:
            prefect.kill()


if __name__ == "__main__":
    keep(int(sys.argv[1]), int(sys.argv[2]))
