"""The recorder's side of the pipe: a process that tells Prefect's server what a stage does.

It also hears from the server when a person cancels the run in the UI, and ends the stage then.
"""

import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, Self
from uuid import UUID

from pipeline.core.errors import UserError
from pipeline.flow import learning, living, server

WATCH_SECONDS = 2.0  # between two looks at whether the run was cancelled in the UI
UNWIND_SECONDS = 30.0  # for a cancelled stage to end by itself, before it is killed
SAMPLES = ("samples", "completions")  # the keys of tables of completions
SHOWN = 3  # rows of such a table in a summary
CANCELLED = "cancelled in the UI; started again, it goes on from its last checkpoint"


def record() -> None:
    """Read events from stdin and record them as one flow run. One line on stdout if that is not possible.

    An event is a line of JSON: ``event`` names a method of Recording, the rest are its arguments.
    """
    try:
        api = server.ensure(retry=False)
        if api is None:
            print(f"not recorded: no Prefect server is up and none could be started; see {server.FOLDER}/server.log")
        else:
            server.use(api)
            from prefect.context import refresh_global_settings_context

            refresh_global_settings_context()  # where prefect was imported before, it has read other settings
            server.stay_in_use()
            with Recording() as recording:
                for line in sys.stdin:
                    details = json.loads(line)
                    getattr(recording, details.pop("event"))(**details)
    except UserError as error:
        print(f"not recorded: {error}")
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())[:200]
        print(f"not fully recorded: {type(error).__name__}: {reason}; see {server.FOLDER}/recorder.log")
    sys.stdout.flush()
    for _ in sys.stdin:  # the stage must not find the pipe closed
        pass


class Recording:
    """One flow run on the server. It has a method for each event."""

    def __init__(self) -> None:
        from prefect.client.orchestration import get_client

        self._client = get_client(sync_client=True)
        self._run: UUID | None = None
        self._held: IO[bytes] | None = None
        self._name = ""
        self._tasks: dict[int, UUID] = {}  # the steps that are running
        self._bars: dict[int, UUID] = {}
        self._curves: dict[int, UUID] = {}
        self._samples: list[dict[str, Any]] = []
        self._cancelled = threading.Event()

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._run and error[0] is None:
            self.end(state="Crashed", message="the process was killed")
        self._client.__exit__(*error)

    def begin(
        self,
        *,
        flow: str,
        name: str,
        parameters: dict[str, Any],
        tags: list[str],
        parent: str | None,
        process: int,
    ) -> None:
        """Open the run. parent: the task run it is shown under. process: the stage's, which cancelling ends."""
        from prefect import Flow, states

        again = os.environ.get(server.AGAIN, "").rpartition("=")
        if again[0] == name:  # somebody asked for this run once more
            run = UUID(again[2])
        else:
            # Prefect offers to run again what belongs to a deployment, and nothing else.
            model = Flow(fn=_nothing, name=flow)
            run = self._client.create_flow_run_from_deployment(
                self._client.create_deployment(self._client.create_flow(model), name="stage"),
                name=name,
                parameters=parameters,
                parent_task_run_id=UUID(parent) if parent else None,
                state=states.Pending(),
                tags=tags,
            ).id
        self._run, self._name, self._held = run, name, living.hold(str(run))
        self._client.set_flow_run_state(run, states.Running(), force=True)
        watch_for_cancelling(run, lambda: self._end_stage(process))

    def _end_stage(self, stage: int) -> None:
        """Terminate the stage's process, and kill it if it goes on."""
        self._cancelled.set()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + UNWIND_SECONDS
            with contextlib.suppress(ProcessLookupError):
                if self._run:  # while the stage lives: the end of its pipe ends the run
                    os.kill(stage, sign)
            while self._run and time.monotonic() < deadline:
                time.sleep(0.1)

    def step(self, *, number: int, name: str) -> None:
        from prefect import Task, states

        task = Task(fn=_nothing, name=name)
        run = self._client.create_task_run(task, self._run, str(number), name=name, state=states.Pending())
        self._client.set_task_run_state(run.id, states.Running(), force=True)
        self._tasks[number] = run.id
        self.log(level=logging.INFO, text=name)

    def step_end(self, *, number: int, state: str, message: str) -> None:
        self._client.set_task_run_state(self._tasks.pop(number), _state(state, message), force=True)

    def progress(self, *, number: int, percent: float, text: str) -> None:
        self._keep(self._bars, number, "progress", data=percent, description=text)

    def curve(self, *, number: int, loop: str, points: list[dict[str, Any]]) -> None:
        """Draw what a training told so far. points: a mapping for each step, with ``step`` among its keys."""
        self._keep(
            self._curves, number, "markdown", key="learning", data=learning.page(f"{self._name}, {loop}", points)
        )

    def markdown(self, *, key: str, text: str) -> None:
        self._artifact("markdown", key=key, data=text)

    def table(self, *, key: str, rows: list[dict[str, Any]]) -> None:
        if key in SAMPLES:
            self._samples = rows[:SHOWN]
        self._artifact("table", key=key, data=json.dumps(rows))

    def summary(self, *, task: str | None, commit: str | None, seconds: float, metrics: list[dict[str, Any]]) -> None:
        """Show on one page what a person wants to know of a run that went well. seconds: how long it took."""
        lines = [f"# {self._name}", "", f"{seconds:.1f} seconds" + (f", commit {commit}" if commit else "")]
        key = self._name.partition("@")[2]
        answered = f"site/completions.html#task={task}&cell={key}" if self._samples and task else ""
        lines += [""] + [
            _report_link(text, path)
            for text, path in (("its completions", answered), ("its run", f"runs/index.html#{self._name}"))
            if path
        ]
        lines += _markdown_table(metrics) + _markdown_table(self._samples)
        self.markdown(key="summary", text="\n".join(lines))

    def log(self, *, level: int, text: str) -> None:
        from prefect.client.schemas.actions import LogCreate
        from prefect.types._datetime import now

        moment: Any = now("UTC")
        self._client.create_logs(
            [LogCreate(name="selfadapt", level=level, message=text, timestamp=moment, flow_run_id=self._run)]
        )

    def end(self, *, state: str, message: str) -> None:
        if self._cancelled.is_set() and state != "Completed":
            state, message = "Cancelled", CANCELLED
        for task in self._tasks.values():
            self._client.set_task_run_state(task, _state(state, message), force=True)
        assert self._run is not None
        self._client.set_flow_run_state(self._run, _state(state, message), force=True)
        self._run = None
        if self._held:
            living.let_go(self._held)

    def _keep(self, known: dict[int, UUID], number: int, kind: str, **about: Any) -> None:
        """Show an artifact, or show it as it is now. known: those of its kind, by number."""
        from prefect.client.schemas.actions import ArtifactUpdate

        if number not in known:
            known[number] = self._artifact(kind, **about)
        else:
            changed = {name: value for name, value in about.items() if name != "key"}
            self._client.update_artifact(known[number], ArtifactUpdate(**changed))

    def _artifact(self, kind: str, *, data: Any, key: str | None = None, description: str | None = None) -> UUID:
        from prefect.client.schemas.actions import ArtifactCreate

        task = list(self._tasks.values())[-1] if self._tasks else None
        # Under its run's name, so that the list of all artifacts reads well, and each shows its history.
        whole = re.sub("[^a-z0-9]+", "-", f"{self._name}-{key}".lower()) if key else None
        artifact = ArtifactCreate(
            key=whole, type=kind, description=description, data=data, flow_run_id=self._run, task_run_id=task
        )
        return self._client.create_artifact(artifact).id


def watch_for_cancelling(run: UUID, act: Callable[[], None]) -> None:
    """Call ``act`` once, from a thread, when somebody cancels a run: there is no worker of Prefect's to do it."""
    from prefect.client.orchestration import get_client

    def watch() -> None:
        with get_client(sync_client=True) as client:
            while True:
                time.sleep(WATCH_SECONDS)
                with contextlib.suppress(Exception):  # the server is away for a moment, or has gone
                    state = client.read_flow_run(run).state
                    if state and state.is_final() and not state.is_cancelled():
                        return
                    if state and (state.is_cancelling() or state.is_cancelled()):
                        break
        act()

    threading.Thread(target=watch, daemon=True).start()


def _report_link(text: str, path: str) -> str:
    """A line of Markdown that leads to a page of the report, or names its file where no server of ours shows it."""
    root = server.report_address()
    return f"- [{text}]({root}/{path})" if root else f"- {text}: `reports/{path}`"


def _markdown_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []

    def cells(values: Iterable[Any]) -> str:
        # A model may write anything: the page must load no picture and offer no link of its making.
        texts = [re.sub(r"([\\`*_\[\]<>|!#])", r"\\\1", " ".join(str(value).split())[:300]) for value in values]
        return f"| {' | '.join(texts)} |"

    return ["", cells(rows[0]), cells(["---"] * len(rows[0])), *(cells(row.values()) for row in rows)]


def _nothing() -> None:
    """What Prefect's models of a flow and a task are made with: the stage is run by its own process."""


def _state(name: str, message: str) -> Any:
    from prefect import states

    return getattr(states, name)(message=message or None)
