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

from pipeline.flow.machines import worker

LOOK_SECONDS = 1.0  # between two looks at which workers there are
PATIENCE_SECONDS = 60.0  # without any worker, before it is worth a word
STATE = Path(".selfadapt")
OTHER_CODE = "expected the code of the run, got another"
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
        self.recorded = True
        self._known: dict[str, bool] = {}  # by address: whether it may run stages
        self._refused: set[tuple[str, str]] = set()
        self._sources, self._versions = worker.sources(), worker.versions()
        self._units: dict[str, str] = {}
        self._over, self._there = threading.Event(), threading.Event()
        self._client = Client(address, set_as_default=False, name="selfadapt")
        self._client.subscribe_topic(self.token, lambda event: begun(event[1]["stage"]))
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        from dvc.repo import Repo

        with Repo() as repo:
            cache = Path(repo.cache.local.path).parents[1]
        cache.mkdir(parents=True, exist_ok=True)
        STATE.mkdir(exist_ok=True)
        self._marks = [STATE / self.token, cache / self.token]
        for mark in self._marks:
            mark.touch()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        for mark in self._marks:
            mark.unlink(missing_ok=True)
        self._client.close()

    def wait(self, ending: Callable[[], bool]) -> None:
        """Wait until there is a worker that may run stages, or the run is to end."""
        while not (self._there.wait(LOOK_SECONDS) or ending()):
            pass

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
        since = time.monotonic()
        while not self._over.wait(0.0 if not self._known else LOOK_SECONDS):
            with contextlib.suppress(OSError, TimeoutError):  # the scheduler is away for a moment, or has gone
                there = self._workers()
                self._look(sorted(there.keys() - self._known.keys()))
                self._known = {address: known for address, known in self._known.items() if address in there}
            if any(self._known.values()):
                since = time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                since = time.monotonic()
                _note(f"no worker at {self.address} that may run stages; in a clone: dask worker {self.address}")
            if not self._known:
                time.sleep(LOOK_SECONDS)

    def _look(self, addresses: Sequence[str]) -> None:
        """Let workers have stages, or say once why not."""
        asked = {"token": self.token, "api": self._api}
        answers = self._client.run(worker.look, **asked, workers=addresses, on_error="return") if addresses else {}
        for address, found in answers.items():
            if isinstance(found, BaseException):  # its code may be too old to be asked
                refused, folder = f"{OTHER_CODE} ({type(found).__name__}: {found}); {REMEDY}", "its folder"
            else:
                refused, folder = found["refused"] or self._other(address, found), found["folder"]
            self._known[address] = not refused
            if refused and (folder, refused) not in self._refused:
                self._refused.add((folder, refused))
                _note(f"the worker at {address} in {folder} gets no stage: {refused}")
            elif not refused:
                self.shared = found["shared"]
                self.recorded &= found["recorded"]
                self._client.run(worker.admit, workers=[address])
                self._there.set()

    def _other(self, address: str, found: Mapping[str, Any]) -> str:
        """Why a worker that answered is not as the coordinator; empty where it is."""
        if found["sources"] != self._sources:
            (units,) = self._client.run(worker.look_closer, workers=[address]).values()
            self._units = self._units or worker.fingerprints()
            if units != self._units:
                return f"{OTHER_CODE} in {_differing(units, self._units)}; {REMEDY}"
        if found["versions"] != self._versions:
            return f"expected the libraries of the run, got others: {_differing(found['versions'], self._versions)}"
        if self.shared not in (None, found["shared"]):
            return "expected its cache to be as the other workers have theirs, shared with the run or not; set it so"
        return ""


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The names of what differs, three at most."""
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return f"{', '.join(names[:3])}{' …' if names[3:] else ''}"


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
