"""Which flow runs have a process that will end them: a lock on a file for each.

Whoever opens a flow run holds a lock on ``.selfadapt/prefect/living/<id>`` until the run has ended. The system lets go
of the lock when that process dies, however it does, and whatever gets its number afterwards. So a file that nobody
holds names a run that Prefect shows as running for ever: ``bury`` has it shown as crashed. The next run of the graph
does that, and the project's own server while it is up.
"""

import contextlib
import fcntl
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError

from pipeline.flow import server

FOLDER = server.FOLDER / "living"
DIED = "ended without a word: it was killed, or the server was away; the next run takes up what it had begun"


def hold(run: str) -> IO[bytes]:
    """Say that this process will end a flow run; to be given to ``let_go`` once it has."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    begun = FOLDER / f".{run}"
    file = begun.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    begun.replace(FOLDER / run)  # under its name only once it is held
    return file


def let_go(file: IO[bytes]) -> None:
    """Say that the run has ended, and that the server knows."""
    begun = Path(str(file.name))
    begun.with_name(begun.name.removeprefix(".")).unlink(missing_ok=True)
    file.close()


def bury(api: str) -> int:
    """Have the runs of dead processes shown as crashed, with their tasks; how many there were. api: the server's."""
    buried = 0
    for path in sorted(FOLDER.glob("[!.]*")):
        with contextlib.suppress(OSError), path.open("rb") as file:  # a server that is away: the next look will tell
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # it lives
            buried += _crash(api, path.name)
            path.unlink(missing_ok=True)
    return buried


def _crash(api: str, run: str) -> bool:
    """Show a flow run and its tasks as crashed; whether it was there and had not ended."""
    try:
        if server.ask(f"{api}/flow_runs/{run}")["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return False
        unended = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
        asked = {"flow_runs": {"id": {"any_": [run]}}, "task_runs": unended}
        for task in server.ask(f"{api}/task_runs/filter", asked):
            _set_crashed(f"{api}/task_runs/{task['id']}")
        _set_crashed(f"{api}/flow_runs/{run}")
    except HTTPError as error:
        if error.code not in (404, 422):  # another server's run; no run's name at all
            raise
        return False
    return True


def _set_crashed(place: str) -> None:
    state: dict[str, Any] = {"type": "CRASHED", "message": DIED}
    server.ask(f"{place}/set_state", {"state": state, "force": True})
