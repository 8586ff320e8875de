"""DVC's locks, and its record ``dvc.lock``, whole again after a kill.

DVC processes in one project keep out of each other's way by two files in ``.dvc/tmp``. ``lock`` is held by a process
that reads or writes the project, for moments. ``rwlock`` names the processes whose stages are at work, and the files of
these stages. Whoever finds them taken waits here, half an hour at most, and says for whom.

DVC writes its record of the finished stages in place. Killed in the middle of that, it leaves half a file, and refuses
to do anything from then on. So every stage, as it starts, copies the record; and before DVC is started (``make repro``,
``selfadapt run``), a record that was cut off is replaced by the copy. Stages that the copy does not know are run again.

    python -m pipeline.flow.lock
"""

import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import atomic, write_text
from pipeline.core.errors import UserError
from pipeline.flow import identity

RECORD, COPY = Path("dvc.lock"), Path(".selfadapt/dvc.lock")
LOCKS = Path(".dvc/tmp")
WAIT_SECONDS = 1800.0  # what a killed run has left running may hold the locks until it ends
TELL_SECONDS = 2.0  # of waiting, before it is worth a word
SHOWN = 120  # characters of a command
Rwlock = dict[str, dict[str, Any]]  # {"read": {path: [{"pid": 1, "cmd": "dvc repro"}]}, "write": {path: {"pid": …}}}
NOBODY: Rwlock = {"read": {}, "write": {}}
CONFLICT = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)


# ---- who holds the locks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holder:
    """A living process that keeps other DVC processes waiting."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})" if self.pid else "another DVC process"


def owner() -> Holder | None:
    """The process that holds ``.dvc/tmp/lock``, or None. Its pid is 0 where it is not known."""
    with _quiet() as quiet:
        if quiet:
            return None
    try:
        pid = int((LOCKS / "lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pid = 0
    command = " ".join(_words(pid))
    return Holder(pid, " ".join(command.split())[:SHOWN]) if command else Holder(0, "")


def at_work() -> list[Holder]:
    """The living processes that ``.dvc/tmp/rwlock`` names."""
    entries = _entries(_living(_read_rwlock() or NOBODY))
    return list(dict.fromkeys(Holder(entry["pid"], entry["cmd"][:SHOWN]) for entry in entries))


def clean() -> None:
    """Take out of ``.dvc/tmp/rwlock`` what a kill has left there: processes that have gone, or half a file.

    DVC itself fails for good at half a file. It forgets a process only while nothing else has the number, and small
    numbers are soon in use again after a restart of a container: then DVC would wait for that program's end.
    """
    rwlock = _read_rwlock()
    if rwlock is not None and rwlock == _living(rwlock):
        return
    from dvc.lock import LockError, make_lock

    with contextlib.suppress(LockError), make_lock(str(LOCKS / "rwlock.lock")):  # so does DVC when it writes this file
        write_text(LOCKS / "rwlock", json.dumps(_living(_read_rwlock() or NOBODY)))


class Patience:
    """Waiting for other DVC processes: a person is told for whom, and after half an hour it ends."""

    def __init__(self) -> None:
        self._waited, self._pauses, self._told = 0.0, 0, ""

    @property
    def is_over(self) -> bool:
        return self._waited >= WAIT_SECONDS

    def pause(self) -> bool:
        """Wait a while, longer each time; whether to try again."""
        seconds = min(0.2 * 1.5 ** min(self._pauses, 10), 5.0) * random.uniform(0.5, 1.5)
        self._pauses += 1
        going_on = self.spend(seconds)
        time.sleep(seconds)
        return going_on

    def spend(self, seconds: float) -> bool:
        """Count ``seconds`` as waited, and tell for whom if that is news; whether to go on waiting."""
        self._waited += seconds
        who = self._whom()
        if who not in ("", self._told) and self._waited > TELL_SECONDS:
            self._told = who
            print(f"note: waiting for {who}", file=sys.stderr, flush=True)
        return not self.is_over

    def sentence(self) -> str:
        """What to say when the waiting has been in vain."""
        who = self._whom() or self._told or "another process"
        return (
            f"expected DVC's lock to come free within {WAIT_SECONDS / 60:.0f} minutes, but {who} still holds it; wait "
            "until that has ended, or end it, and run this again"
        )

    def _whom(self) -> str:
        """The holders that this process has not started itself."""
        inside = owner()
        holders = [holder for holder in [*at_work(), *([inside] if inside else [])] if not _is_ours(holder.pid)]
        return ", ".join(dict.fromkeys(map(str, holders)))


@contextlib.contextmanager
def _quiet() -> Iterator[bool]:
    """Keep DVC from writing for a moment, by holding its lock; False where a DVC process holds it."""
    with contextlib.ExitStack() as stack:
        quiet = True
        with contextlib.suppress(FileNotFoundError):  # no DVC process has ever been here
            file = stack.enter_context((LOCKS / "lock").open("rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                quiet = False
        yield quiet


def _read_rwlock() -> Rwlock | None:
    """What ``.dvc/tmp/rwlock`` says; None for half a file."""
    try:
        text = (LOCKS / "rwlock").read_text(encoding="utf-8")
    except FileNotFoundError:
        return NOBODY
    try:
        rwlock = NOBODY | json.loads(text)
        assert all(isinstance(entry["pid"], int) and isinstance(entry["cmd"], str) for entry in _entries(rwlock))
    except (ValueError, TypeError, AttributeError, KeyError, AssertionError):
        return None
    return rwlock


def _entries(rwlock: Rwlock) -> list[Mapping[str, Any]]:
    return [*rwlock["write"].values(), *(entry for entries in rwlock["read"].values() for entry in entries)]


def _living(rwlock: Rwlock) -> Rwlock:
    """``rwlock`` without the processes that have gone."""

    def lives(entry: Mapping[str, Any]) -> bool:
        return _is_running(entry["pid"], entry["cmd"])

    reading = {path: list(filter(lives, entries)) for path, entries in rwlock["read"].items()}
    writing = {path: entry for path, entry in rwlock["write"].items() if lives(entry)}
    return {"read": {path: entries for path, entries in reading.items() if entries}, "write": writing}


def _words(pid: int) -> list[str]:
    """The command line of a process; empty if it has gone."""
    import psutil

    try:
        return psutil.Process(pid).cmdline() if pid else []
    except psutil.Error:
        return []


def _is_running(pid: int, command: str) -> bool:
    """Whether a process is the one that began with ``command`` (its sys.argv), and no other program of its number."""
    words = command.split(" ")[1:]  # the first is the script, which may stand there as -m and a module
    return (" " + " ".join(_words(pid))).endswith(" ".join(["", *words])) and bool(_words(pid))


def _is_ours(pid: int) -> bool:
    """Whether a process is this one, or was started by it."""
    import psutil

    try:
        return pid == os.getpid() or psutil.Process(pid).ppid() == os.getpid()
    except psutil.Error:
        return False


# ---- the record --------------------------------------------------------------------------------------------------


def keep() -> None:
    """Copy the record, if it has changed since the last copy. Not while DVC may be writing it."""
    if not RECORD.is_file() or (COPY.is_file() and COPY.stat().st_mtime_ns == RECORD.stat().st_mtime_ns):
        return
    COPY.parent.mkdir(exist_ok=True)
    with _quiet() as quiet:
        if quiet:
            with atomic(COPY) as path:
                shutil.copy2(RECORD, path)  # with its time, by which a later change is noticed


def mend() -> str | None:
    """Make good what a killed DVC has left; what was done to the record, in a sentence, or None.

    A record that DVC can't read is kept in ``.selfadapt``, and its copy takes its place. Raises UserError for the
    conflict markers of a merge, which only a person can resolve.
    """
    identity.complete()
    clean()
    if not RECORD.is_file() or whole(RECORD):
        return None
    with held():  # DVC writes the record only while it holds its lock
        if not RECORD.is_file() or whole(RECORD):
            return None  # a living process has finished writing it
        if CONFLICT.search(RECORD.read_text(encoding="utf-8", errors="replace")):
            raise UserError(
                "expected a record of stages in dvc.lock, got the conflict markers of a merge; take one side with "
                "'git checkout --ours dvc.lock' or 'git checkout --theirs dvc.lock', then run 'dvc repro'"
            )
        aside = COPY.with_name(f"dvc.lock.cut-{time.time_ns()}")
        aside.parent.mkdir(exist_ok=True)
        said = f"dvc.lock was cut off, by a kill it seems, and is kept as {aside}"
        if COPY.is_file() and whole(COPY):
            shutil.copy2(RECORD, aside)
            with atomic(RECORD) as path:
                shutil.copy2(COPY, path)
            return f"{said}; its last copy takes its place, and the stages that this does not know are checked anew"
        RECORD.replace(aside)
        return f"{said}; there is no copy of it, and all stages are checked anew"


def whole(path: Path) -> bool:
    """Whether DVC can read a record."""
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    except (Invalid, yaml.YAMLError, UnicodeDecodeError):
        return False
    return True


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold DVC's lock; a process that holds it is waited for."""
    from dvc.exceptions import DvcException
    from dvc.lock import DEFAULT_TIMEOUT, LockError
    from dvc.repo import Repo

    patience = Patience()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(DvcException):  # no project of DVC's, or one that DVC can't open: nobody is at it
            repo = stack.enter_context(Repo())
            while True:
                try:
                    stack.enter_context(repo.lock)
                    break
                except LockError:
                    if not patience.spend(DEFAULT_TIMEOUT):  # so long has DVC waited by itself
                        raise UserError(patience.sentence()) from None
        yield


def main() -> int:
    """Mend what a kill has left, and say so; the exit code."""
    try:
        said = mend()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if said:
        print(f"note: {said}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
