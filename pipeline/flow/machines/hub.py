"""Dask's scheduler as the coordinator sees it: workers come and go, and each is looked at before it gets a stage."""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from pipeline.core.errors import UserError
from pipeline.flow.machines import worker
from pipeline.flow.machines.record import has_remote

LOOK_SECONDS = 1.0  # between two looks at which workers there are
PATIENCE_SECONDS = 60.0  # of waiting for a worker, before it is worth a word
DAY_SECONDS = 86400.0
STATE = Path(".selfadapt")
OTHER_CODE = "expected the code of the run, got another"
REFUSED = -1
REMEDY = "bring its clone to the same commit and start it again"


class Hub:
    """The workers of one run.

    shared: whether their cache is the coordinator's; None as long as there is no worker. All are alike in that. begun:
    hears the name of a stage that a worker begins.
    """

    def __init__(self, address: str, *, api: str, begun: Callable[[str], None]) -> None:
        from distributed import Client

        self.address, self._api = address, api
        self.token = f"selfadapt-{uuid4().hex}"
        self.shared: bool | None = None
        self._known: dict[str, int] = {}  # by address: how many GPUs it has; less than none where it gets no stage
        self._refused: set[tuple[str, str]] = set()
        self._sources, self._versions = worker.sources(), worker.versions()
        self._units: dict[str, str] = {}
        self._over = threading.Event()
        try:
            self._client = Client(address, set_as_default=False, name="selfadapt")
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"expected Dask's scheduler at {address}, got: {said}; start one with 'dask scheduler'"
            ) from None
        self._client.subscribe_topic(self.token, lambda event: begun(event[1]["stage"]))
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        from dvc.repo import Repo

        with Repo() as repo:
            cache = Path(repo.cache.local.path).parents[1]
            self._has_remote = has_remote(repo)
        cache.mkdir(parents=True, exist_ok=True)
        STATE.mkdir(exist_ok=True)
        self._marks = [STATE / self.token, cache / self.token]
        for mark in self._marks:
            for left in mark.parent.glob(f"selfadapt-{'[0-9a-f]' * 32}"):  # by a run that was killed
                if time.time() - left.stat().st_mtime > DAY_SECONDS:
                    left.unlink(missing_ok=True)
            mark.touch()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        for mark in self._marks:
            mark.unlink(missing_ok=True)
        self._client.close()

    def wait(self, gpus: int, ending: Callable[[], bool]) -> None:
        """Wait until there is a worker that may run stages and has ``gpus`` GPUs, or the run is to end."""
        since = time.monotonic()
        while not (any(has >= gpus for has in self._known.values()) or ending()):
            time.sleep(LOOK_SECONDS)
            if time.monotonic() - since > PATIENCE_SECONDS:
                since = time.monotonic()
                what = f" and has {gpus} GPUs" if gpus else ""
                _note(f"no worker at {self.address} may run stages{what}; in a clone: dask worker {self.address}")

    def beside(self) -> int:
        """How many workers share a machine, where they are most."""
        with contextlib.suppress(OSError):
            hosts = Counter(info["host"] for info in self._workers().values())
            return max(hosts.values(), default=1)
        return 1

    def _workers(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _watch(self) -> None:
        """Look at each worker that comes."""
        while not self._over.wait(LOOK_SECONDS):
            with contextlib.suppress(Exception):  # the scheduler or a worker is away for a moment, or has gone
                there = self._workers()
                self._known = {address: has for address, has in self._known.items() if address in there}
                self._look(sorted(there.keys() - self._known.keys()))

    def _look(self, addresses: Sequence[str]) -> None:
        """Let workers have stages, or say once why not."""
        asked = {"token": self.token, "api": self._api}
        answers = self._client.run(worker.look, **asked, workers=addresses, on_error="return") if addresses else {}
        # What has other code is looked at more closely, which takes a while: last.
        for address, found in sorted(answers.items(), key=lambda answer: not self._is_alike(answer[1])):
            if isinstance(found, BaseException):  # its code may be too old to be asked
                refused, folder = f"{OTHER_CODE} ({type(found).__name__}: {found}); {REMEDY}", "its folder"
            else:
                refused, folder = found["refused"] or self._other(address, found), found["folder"]
            self._known[address] = REFUSED
            if refused and (folder, refused) not in self._refused:
                self._refused.add((folder, refused))
                _note(f"the worker at {address} in {folder} gets no stage: {refused}")
            elif not refused:
                self.shared = found["shared"]
                self._client.run(worker.admit, self.token, found["gpus"], workers=[address])
                self._known[address] = found["gpus"]

    def _is_alike(self, found: Any) -> bool:
        return isinstance(found, dict) and found.get("sources") == self._sources

    def _other(self, address: str, found: Mapping[str, Any]) -> str:
        """Why a worker that answered is not as the coordinator; empty where it is."""
        if not self._is_alike(found):
            (units,) = self._client.run(worker.look_closer, workers=[address]).values()
            self._units = self._units or worker.fingerprints()
            if units != self._units:
                return f"{OTHER_CODE} in {_differing(units, self._units)}; {REMEDY}"
        if found["versions"] != self._versions:
            return f"expected the libraries of the run, got others: {_differing(found['versions'], self._versions)}"
        if self.shared not in (None, found["shared"]):
            return "expected its cache to be as the other workers have theirs, shared with the run or not; set it so"
        if not (found["shared"] or self._has_remote):
            return (
                "expected a cache that it shares with the run, as the run's folder has no remote; set one of them "
                "('dvc cache dir', 'dvc remote add --default')"
            )
        if not found["recorded"]:
            return (
                f"expected Prefect's server at {self._api} to answer it; have one that all machines reach ('prefect "
                "server start --host 0.0.0.0') and set PREFECT_API_URL for the run"
            )
        return ""


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The names of what differs, three at most."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return f"{', '.join(names[:3])}{' …' if names[3:] else ''}"


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
