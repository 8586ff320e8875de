"""Prefect's server: found, or started where none is up.

The server that is up is used: the one ``PREFECT_API_URL`` names, the project's own, or one on Prefect's default port.
Where none is up the first run starts the project's own, in the background (``keeper``). Later runs find it, and it ends
by itself once nothing has been recorded for five minutes. So a whole ``dvc repro`` pays for one start at most.

The project's own server keeps its database in ``.selfadapt/prefect``: whatever started a run, ``make ui`` shows it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.core.errors import UserError

FOLDER = Path(".selfadapt/prefect")
OWN_PORTS = range(4201, 5201)
REPORT_PORTS = range(5201, 6201)
START_SECONDS = 300  # a start takes 5 to 12 s on two idle cores, minutes on very busy ones
TOUCH_SECONDS = 30  # between two words that the server is in use
REST = 5  # a start that failed is tried again after that many times as long as it took
PARENT = "SELFADAPT_PARENT_TASK_RUN"  # the parent flow's task run that a stage's run is shown under
AGAIN = "SELFADAPT_AGAIN"  # "<stage>=<id of its flow run>": the run that a stage goes on in
LOOPBACK = ("127.0.0.1", "localhost", "::1")
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wanted() -> bool:
    """Whether runs are to be recorded: not with SELFADAPT_PREFECT=off."""
    return os.environ.get("SELFADAPT_PREFECT", "on") != "off"


def running() -> str | None:
    """The address of the API of a server that is up, or None."""
    own = _state().get("port")
    candidates = [os.environ.get("PREFECT_API_URL"), api_at(own) if own else None, api_at(_default_port())]
    return next((api for api in candidates if api and healthy(api)), None)


def ensure(*, retry: bool = True) -> str | None:
    """The address of the API of a server that is up, started if need be; None if none can be started.

    retry: whether to try again soon after a start that failed. Stages do not, or each of them would wait for it.
    """
    if api := running():
        return api
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _lock():
        if api := running():  # another run started it while this one waited
            return api
        if not retry and _rests(_state()):
            return None
        return _start()


def _start() -> str | None:
    """Start the project's own server and wait until it answers; the address of its API, or None if it does not."""
    port, report_port = _free_port(OWN_PORTS), _free_port(REPORT_PORTS)
    touch()
    with (FOLDER / "server.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "pipeline.flow.keeper", str(port), str(report_port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # outlives the stage that needed it, and Ctrl-C in its terminal
        )
    start = time.monotonic()
    while time.monotonic() - start < START_SECONDS and keeper.poll() is None:
        if healthy(api_at(port)):
            _write_state({"port": port, "report_port": report_port, "pid": keeper.pid})
            touch()  # the start may have taken minutes
            return api_at(port)
        time.sleep(0.2)
    keeper.terminate()
    seconds = time.monotonic() - start
    _write_state({"failed_unix_seconds": time.time(), "took_seconds": seconds, "circumstances": _circumstances()})
    return None


def _rests(state: Mapping[str, Any]) -> bool:
    """Whether it is too soon after a start that failed, and nothing has changed that may have been its cause."""
    passed = time.time() - state.get("failed_unix_seconds", 0.0)
    return passed < REST * state.get("took_seconds", 0.0) and state.get("circumstances") == _circumstances()


def _circumstances() -> str:
    """A hash of what a start may fail for: user, interpreter, and the environment variables that are read."""
    read = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PREFECT_", "PYTHON", "HOME", "XDG_")) or name.lower().endswith("_proxy")
    }
    return hashlib.sha256(json.dumps([os.getuid(), sys.executable, sorted(read.items())]).encode()).hexdigest()[:16]


def use(api: str) -> None:
    """Point this process at a server; to be called before prefect is imported."""
    environment = settings(os.environ, api)
    if "PREFECT_API_URL" not in environment:  # a server of the user's own comes with the user's own settings
        environment["PREFECT_HOME"] = str(FOLDER.resolve())
    environment["PREFECT_API_URL"] = api
    for name in os.environ.keys() - environment:
        del os.environ[name]
    os.environ.update(environment)


def settings(environment: Mapping[str, str], api: str) -> dict[str, str]:
    """``environment`` as Prefect is to find it: quiet, nothing set to nothing, and no proxy for a server that is here.

    Prefect's client fails even at a proxy that it need not ask, for example a SOCKS proxy.
    """

    def misleads(name: str, value: str) -> bool:
        return (name.startswith("PREFECT_") and not value) or (name.lower().endswith("_proxy") and _is_here(api))

    return QUIET | {name: value for name, value in environment.items() if not misleads(name, value)}


def report_address() -> str | None:
    """Where the project's own server shows the report; None without one."""
    port = _state().get("report_port")
    return f"http://127.0.0.1:{port}" if port else None


def touch() -> None:
    """Say that the server is in use."""
    with contextlib.suppress(OSError):
        (FOLDER / "used").touch()


def stay_in_use() -> None:
    """Keep saying so, until this process ends."""

    def say() -> None:
        while True:
            touch()
            time.sleep(TOUCH_SECONDS)

    threading.Thread(target=say, daemon=True).start()


def api_at(port: int) -> str:
    """The address of the API of a server on this machine."""
    return f"http://127.0.0.1:{port}/api"


def healthy(api: str) -> bool:
    """Whether a server is up."""
    try:
        return ask(f"{api}/health", seconds=5) is True
    except (OSError, ValueError, HTTPException):  # nobody is there, or something else than Prefect
        return False


def ask(url: str, body: Mapping[str, Any] | None = None, *, seconds: float = 10) -> Any:
    """What an API answers, to a POST if there is a ``body``. A server on this machine is asked without a proxy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    opened = DIRECT.open if _is_here(url) else urllib.request.urlopen
    with opened(request, timeout=seconds) as answer:
        return json.load(answer)


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def _default_port() -> int:
    """Prefect's own setting, and its default."""
    value = os.environ.get("PREFECT_SERVER_API_PORT") or "4200"
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise UserError(f"expected a port in PREFECT_SERVER_API_PORT, got '{value}'; correct or unset the variable")
    return int(value)


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


def _state() -> dict[str, Any]:
    """What is known of the project's own server: its ports and process, or when its start failed."""
    try:
        state = json.loads((FOLDER / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(state: Mapping[str, Any]) -> None:
    temporary = FOLDER / f"server.json.{os.getpid()}"
    temporary.write_text(json.dumps(state), encoding="utf-8")
    temporary.replace(FOLDER / "server.json")


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    with (FOLDER / "server.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
