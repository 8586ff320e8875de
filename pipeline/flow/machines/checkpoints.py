"""A stage's checkpoints, kept in DVC's remote while it runs, so that another machine can go on where this one ended.

Only where workers have caches of their own: beside a shared cache the checkpoints lie there (``worker``). A remote that
takes no such files, or is away, stops no stage: then a stage that is taken over begins anew.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

HERE, THERE = Path(".selfadapt/checkpoints"), "selfadapt-checkpoints"
PUSH_SECONDS = 20.0  # between two looks for new checkpoints


class Kept:
    """The checkpoints of one stage: fetched when it begins, pushed as it goes on, and forgotten once it has ended well.

    done: to be set then.
    """

    def __init__(self, stage: str) -> None:
        from dvc.repo import Repo

        with Repo() as repo:
            remote = repo.cloud.get_remote()
            self._fs: Any = remote.fs
            self._folder = self._fs.join(remote.path, THERE, quote(stage, safe=""))
        self._pushed = dict(_files())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.done = False

    def __enter__(self) -> Self:
        with contextlib.suppress(Exception):
            self._fetch()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            if self.done and self._fs.exists(self._folder):
                self._fs.remove(self._folder, recursive=True)

    def _fetch(self) -> None:
        if not self._fs.exists(self._folder):
            return
        for path in self._fs.find(self._folder):
            if not path.endswith(".safetensors"):
                continue
            here = HERE / self._fs.relpath(path, self._folder)
            here.parent.mkdir(parents=True, exist_ok=True)
            half = here.with_suffix(".fetched")
            self._fs.get_file(path, str(half))
            half.replace(here)
        self._pushed = dict(_files())

    def _watch(self) -> None:
        while not self._over.wait(PUSH_SECONDS):
            with contextlib.suppress(Exception):
                self._push()

    def _push(self) -> None:
        for path, time in _files():
            if self._pushed.get(path) == time:
                continue
            there = self._fs.join(self._folder, path.relative_to(HERE).as_posix())
            self._fs.makedirs(self._fs.parent(there), exist_ok=True)
            half = f"{there}.half"  # a worker may be killed here
            self._fs.put_file(str(path), half)
            self._fs.move(half, there)
            self._pushed[path] = time


def _files() -> Iterator[tuple[Path, int]]:
    """The checkpoints in this folder, and when each was written."""
    for path in sorted(HERE.rglob("*.safetensors")):
        with contextlib.suppress(FileNotFoundError):  # another one has taken its place, or the stage has ended
            yield path, path.stat().st_mtime_ns
