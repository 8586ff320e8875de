"""Flow runs whose process has died are shown as crashed; those whose process lives are left alone."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.flow import living, server
from tests.unit.flow.toy import until

RUN, TASK = "0a1b2c3d-0000-4000-8000-000000000001", "0a1b2c3d-0000-4000-8000-000000000002"
HOLD = f"""
import time
from pipeline.flow import living
file = living.hold({RUN!r})
print("held", flush=True)
time.sleep(60)
"""


class Prefect(BaseHTTPRequestHandler):
    """A server that knows one run with a task that has begun."""

    states: dict[str, str]  # of runs and tasks, by their ids

    def do_GET(self) -> None:
        self._answer({"state_type": self.states[RUN]} if self.path.endswith(RUN) else None)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/set_state"):
            assert body["force"]
            self.states[self.path.split("/")[-2]] = body["state"]["type"]
            self._answer({})
        else:
            assert body["flow_runs"] == {"id": {"any_": [RUN]}}
            self._answer([{"id": TASK}])

    def _answer(self, value: Any) -> None:
        self.send_response(404 if value is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    Prefect.states = {RUN: "RUNNING", TASK: "RUNNING"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Prefect) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield server.api_at(running.server_port)
        running.shutdown()


def left() -> list[str]:
    return [path.name for path in living.FOLDER.iterdir()]


def test_a_run_is_crashed_once_its_process_has_died_and_not_before(api: str, root: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert living.bury(api) == 0
        assert Prefect.states == {RUN: "RUNNING", TASK: "RUNNING"} and left() == [RUN]
        process.send_signal(signal.SIGKILL)
    until(lambda: living.bury(api) == 1, seconds=10)
    assert Prefect.states == {RUN: "CRASHED", TASK: "CRASHED"} and left() == []


def test_a_run_that_has_ended_is_forgotten(api: str) -> None:
    living.let_go(living.hold(RUN))
    assert left() == []
    assert living.bury(api) == 0 and Prefect.states[RUN] == "RUNNING"


def test_a_run_whose_end_did_not_reach_the_server_is_told_later(api: str) -> None:
    living.hold(RUN).close()  # as a process that ends without a word
    assert living.bury("http://127.0.0.1:9/api") == 0 and left() == [RUN]
    assert living.bury(api) == 1 and left() == []


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_a_run_that_the_server_knows_to_have_ended_keeps_its_state(api: str, state: str) -> None:
    living.hold(RUN).close()
    Prefect.states[RUN] = state
    assert living.bury(api) == 0 and Prefect.states[RUN] == state and left() == []


def test_a_run_of_another_server_is_forgotten(api: str) -> None:
    living.hold("0a1b2c3d-0000-4000-8000-00000000000f").close()
    assert living.bury(api) == 0 and left() == []
