"""The life of the Prefect server that runs are recorded on.

The server that is up is used: the one ``PREFECT_API_URL`` names, the project's own, or one on Prefect's default
port. Where none is up the first run starts the project's own, in the background; later runs find it, and it ends
by itself once nothing has been recorded for five minutes. So a whole ``dvc repro`` pays for one start at most.

The project's own server keeps its database in ``.selfadapt/prefect``: whatever started a run, ``make ui`` shows it.
Beside it, the folder ``reports`` is served, because a page of a server may not link to a file. A run that somebody
asks for again in the UI is taken up here, as there is no worker: DVC runs its stage once more.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(".selfadapt/prefect")
DEFAULT_PORT = int(os.environ.get("PREFECT_SERVER_API_PORT", "4200"))  # Prefect's own setting, and its default
OWN_PORTS = range(4201, 5201)
REPORT_PORTS = range(5201, 6201)
START_SECONDS = 120  # a start takes 5 to 12 s on two idle cores, a minute on busy ones
IDLE_SECONDS = 300
PARENT = "SELFADAPT_PARENT_TASK_RUN"  # the parent flow's task run that a stage's run is shown under
LOOK_SECONDS = 3  # between two looks at what somebody asked for again
AGAIN = "SELFADAPT_AGAIN"  # "<stage>=<id of its flow run>": the run that a stage goes on in
RETRY_SECONDS = 600  # after a start that failed, so that not every stage waits for another
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def wanted() -> bool:
    """Whether runs are to be recorded: not with SELFADAPT_PREFECT=off."""
    return os.environ.get("SELFADAPT_PREFECT", "on") != "off"


def running() -> str | None:
    """The address of the API of a server that is up, or None."""
    own = _state().get("port")
    candidates = [os.environ.get("PREFECT_API_URL"), _api(own) if own else None, _api(DEFAULT_PORT)]
    return next((api for api in candidates if api and _healthy(api)), None)


def ensure() -> str | None:
    """The address of the API of a server that is up, started if need be; None if none can be started."""
    if api := running():
        return api
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _lock():
        if api := running():  # another run started it while this one waited
            return api
        state = _state()
        if time.time() - state.get("failed_unix_seconds", 0) < RETRY_SECONDS:
            return None
        port, report_port = _free_port(OWN_PORTS), _free_port(REPORT_PORTS)
        touch()
        with (FOLDER / "server.log").open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "pipeline.flow.server", str(port), str(report_port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # outlives the stage that needed it, and Ctrl-C in its terminal
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and keeper.poll() is None:
            if _healthy(_api(port)):
                _write_state({"port": port, "report_port": report_port, "pid": keeper.pid})
                return _api(port)
            time.sleep(0.2)
        keeper.terminate()
        _write_state({"failed_unix_seconds": time.time()})
        return None


def use(api: str) -> None:
    """Point this process and its children at a server; to be called before prefect is imported."""
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    if "PREFECT_API_URL" not in os.environ:  # a server of the user's own comes with the user's own settings
        os.environ["PREFECT_HOME"] = str(FOLDER.resolve())
    os.environ["PREFECT_API_URL"] = api


def report_address() -> str | None:
    """Where the project's own server shows the report; None without one."""
    port = _state().get("report_port")
    return f"http://127.0.0.1:{port}" if port else None


def touch() -> None:
    """Say that the server is in use."""
    with contextlib.suppress(OSError):
        (FOLDER / "used").touch()


class _Report(SimpleHTTPRequestHandler):
    """The files of ``reports``, whatever replaces that folder meanwhile; nothing is logged."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, directory="reports")

    def log_message(self, *arguments: Any) -> None:
        pass


class _Retries:
    """Stages that somebody asked for again in the UI."""

    def __init__(self, api: str) -> None:
        self._api, self._looked = api, 0.0
        self._running: dict[str, subprocess.Popen[str]] = {}

    def look(self) -> None:
        """Start what is asked for, and say what became of that which did not come to run."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(OSError, ValueError):  # the server is busy: the next look will tell
            asked = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            for run in _post(f"{self._api}/flow_runs/filter", asked):
                self._state(run["id"], "PENDING", "taken up")
                self._running[run["id"]] = self._start(run["name"], run["id"])
            for identity in [one for one, process in self._running.items() if process.poll() is not None]:
                _, said = self._running.pop(identity).communicate()
                if _get(f"{self._api}/flow_runs/{identity}")["state_type"] == "PENDING":
                    self._state(identity, "FAILED", f"the stage did not start: {' '.join(said.split())[-400:]}")

    def _start(self, stage: str, identity: str) -> "subprocess.Popen[str]":
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        kept = {name: value for name, value in os.environ.items() if name != PARENT}
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "--single-item", "--force", "--", stage],
            env=kept | {"PATH": search, AGAIN: f"{stage}={identity}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _state(self, identity: str, kind: str, message: str) -> None:
        state = {"type": kind, "message": message}
        _post(f"{self._api}/flow_runs/{identity}/set_state", {"state": state, "force": True})


def keep(port: int, report_port: int) -> None:
    """Run the project's server, and one of the report, until nobody has used it for a while."""
    with contextlib.suppress(OSError):  # the port was taken meanwhile: the links will not work, all else does
        report = ThreadingHTTPServer(("127.0.0.1", report_port), _Report)
        threading.Thread(target=report.serve_forever, daemon=True).start()
    home = FOLDER.resolve()
    api = _api(port)
    environment = os.environ | QUIET | {"PREFECT_HOME": str(home), "PREFECT_API_URL": api, "PREFECT_UI_API_URL": api}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    used = home / "used"
    retries = _Retries(api)
    try:
        # Gone with the project folder, too: then there is nothing left to record into.
        while server.poll() is None and used.exists() and time.time() - used.stat().st_mtime < IDLE_SECONDS:
            retries.look()
            time.sleep(1)
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()


def _api(port: int) -> str:
    return f"http://127.0.0.1:{port}/api"


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
            return answer.read().strip() == b"true"
    except (OSError, ValueError):
        return False


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def _free_port(ports: range) -> int:
    """One of ``ports`` that stays the project's own, so that its address can be kept; any free one if it is taken.

    Never Prefect's default port: another project would take this server for one that stays up.
    """
    own = ports[zlib.crc32(str(FOLDER.resolve()).encode()) % len(ports)]
    for port in (own, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port")


def _state() -> dict:
    try:
        return json.loads((FOLDER / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_state(state: dict) -> None:
    temporary = FOLDER / f"server.json.{os.getpid()}"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(FOLDER / "server.json")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    with (FOLDER / "server.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    keep(int(sys.argv[1]), int(sys.argv[2]))
