"""Prefect's server is found, or started, whatever the environment says."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import httpx
import pytest

from pipeline.core.errors import UserError
from pipeline.flow import keeper, server

NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses everything
PROXIES = ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"]


class Healthy(BaseHTTPRequestHandler):
    """An API that is up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *arguments: object) -> None:
        pass


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve until the test has ended; the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield running.server_port
        running.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a server, in an environment that says nothing of one."""
    monkeypatch.chdir(tmp_path)
    for name in [*PROXIES, "no_proxy", "NO_PROXY", "PREFECT_API_URL", "PREFECT_SERVER_API_PORT"]:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def api(folder: Path) -> Iterator[str]:
    """The address of an API that is up."""
    for port in serve(Healthy):
        yield server.api_at(port)


@pytest.mark.parametrize("proxy", [NOWHERE, "socks5://127.0.0.1:9", "nonsense://x:y"])
@pytest.mark.parametrize("variable", PROXIES)
def test_a_server_on_this_machine_is_asked_without_a_proxy(
    api: str, monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    assert server.healthy(api)
    monkeypatch.setattr(os, "environ", server.settings(os.environ, api))
    assert httpx.get(f"{api}/health").text == "true"  # as Prefect asks


def test_a_proxy_is_asked_for_a_server_on_another_machine() -> None:
    given = {"http_proxy": NOWHERE, "no_proxy": "intern.example"}
    assert server.settings(given, "https://prefect.example/api").items() >= given.items()


def test_a_setting_of_prefect_that_is_empty_counts_as_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "")
    monkeypatch.setattr(server, "healthy", lambda api: api == "http://127.0.0.1:4200/api")
    assert server.running() == "http://127.0.0.1:4200/api"
    assert "PREFECT_SERVER_API_PORT" not in server.settings({"PREFECT_SERVER_API_PORT": ""}, "http://127.0.0.1/api")


@pytest.mark.parametrize("value", ["port", "0", "65536", "-1", "4200.0"])
def test_a_port_that_is_none_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", value)
    with pytest.raises(UserError, match=f"expected a port in PREFECT_SERVER_API_PORT, got '{value}'; correct or unset"):
        server.running()


def test_something_else_on_the_port_is_no_server(folder: Path) -> None:
    class Rude(Healthy):
        def do_GET(self) -> None:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    for port in serve(Rude):
        assert not server.healthy(server.api_at(port))


@pytest.fixture
def failing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No server can be started; how often it was tried, an entry each."""
    tries: list[int] = []

    class Keeper:
        pid = 0

        def __init__(self, *arguments: object, **more: object) -> None:
            tries.append(1)

        def poll(self) -> int:
            return 1

        def terminate(self) -> None:
            pass

    monkeypatch.setattr(server, "running", lambda: None)
    monkeypatch.setattr(server.subprocess, "Popen", Keeper)
    monkeypatch.setattr(server, "REST", 1e9)
    return tries


def test_a_start_that_failed_is_not_tried_again_by_every_stage(failing: list[int]) -> None:
    assert server.ensure(retry=False) is None
    assert server.ensure(retry=False) is None
    assert len(failing) == 1


def test_a_start_that_failed_is_tried_again_when_a_person_asks(failing: list[int]) -> None:
    assert server.ensure(retry=False) is None
    assert server.ensure() is None
    assert len(failing) == 2


def test_a_start_that_failed_is_tried_again_once_its_cause_may_have_gone(
    failing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "nonsense")
    assert server.ensure(retry=False) is None
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL")
    assert server.ensure(retry=False) is None
    assert len(failing) == 2


def test_a_start_that_failed_at_once_is_tried_again_soon(failing: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REST", 5)
    assert server.ensure(retry=False) is None
    took = json.loads((server.FOLDER / "server.json").read_text())["took_seconds"]
    time.sleep(5 * took + 0.01)
    assert server.ensure(retry=False) is None
    assert len(failing) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '"port"'])
def test_a_state_that_is_none_is_no_server(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    server.FOLDER.mkdir(parents=True)
    (server.FOLDER / "server.json").write_text(text)
    monkeypatch.setattr(server, "healthy", lambda api: False)
    assert server.running() is None


def test_the_report_is_served_and_no_link_out_of_it_is_followed(folder: Path) -> None:
    (folder / "secret").write_text("secret")
    reports = folder / "reports"
    reports.mkdir()
    (reports / "index.html").write_text("report")
    (reports / "within").symlink_to("index.html")
    (reports / "out").symlink_to(folder / "secret")
    (reports / "up").symlink_to("..")
    for port in serve(keeper.Report):
        for path in ("", "index.html", "within"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                assert answer.read() == b"report"
        for path in ("out", "up/secret", "up/", "../secret", "%2e%2e/secret"):
            with pytest.raises(HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}")
