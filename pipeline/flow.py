"""The pipeline as Prefect flows: the only file that imports prefect.

Two doors lead here. ``python -m pipeline.flow <stage>[@<key>] --argument value …`` runs one stage: it is what
every ``cmd`` of ``dvc.yaml`` says. ``run_graph`` runs the stages of DVC's graph side by side, each by
``dvc repro --single-item``: DVC decides what is stale and is the only cache.

A stage never waits for Prefect and never fails with it. A second process, the recorder, hears what the stage does
through a pipe and tells the server; it imports prefect, and starts a server where none is up, while the stage
imports its own libraries. When the pipe ends without a word, the stage was killed, and its run is shown as crashed.
It also hears what a person asks for in the UI: a run that is cancelled there is ended here, and goes on from its last
checkpoint when it is started again. With SELFADAPT_PREFECT=off there is no recorder.
"""

import contextlib
import json
import logging
import os
import queue
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from pipeline import lockfile, server, warm
from pipeline.core.errors import UserError
from pipeline.core.progress import Bar, Console, report_to

PROGRESS_SECONDS = 2.0  # between two updates of a bar
WAIT_SECONDS = 20.0  # for the recorder, once the stage has ended
WATCH_SECONDS = 2.0  # between two looks at whether the run was cancelled in the UI
UNWIND_SECONDS = 30.0  # for a cancelled stage to end by itself, before it is killed
SAMPLES, SHOWN = ("samples", "completions"), 3  # tables of completions, and how many of their rows a summary has
CANCELLED = "cancelled in the UI; started again, it goes on from its last checkpoint"
# Two DVC processes meet at DVC's own locks for moments only.
BUSY = ("Unable to acquire lock", "is busy")
BUSY_ATTEMPTS = 30


# ---- the stage's side of the pipe --------------------------------------------------------------------------------


class Recorder(Console):
    """A reporter that also tells the recorder process; if that has gone, nobody is told and the stage goes on."""

    def __init__(self) -> None:
        server.FOLDER.mkdir(parents=True, exist_ok=True)
        hears, tells = os.pipe()
        said, says = os.pipe()
        with (server.FOLDER / "recorder.log").open("ab") as log:
            streams = (hears, says, log.fileno())
            # In a session of its own: a signal that ends the stage must not end the one who tells of it.
            if not warm.start("pipeline.flow", "record", streams):
                code = "from pipeline.flow import record; record()"
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code], stdin=hears, stdout=says, stderr=log, start_new_session=True
                )
        os.close(hears)
        os.close(says)
        self._tells, self._said = os.fdopen(tells, "wb"), said
        self._count = 0

    def tell(self, event: str, **details: Any) -> None:
        line = json.dumps({"event": event, **details}, default=str) + "\n"
        with contextlib.suppress(OSError, ValueError):
            self._tells.write(line.encode())
            self._tells.flush()

    def close(self) -> None:
        """End the recording, and pass on what the recorder has to say (nothing, if all went well)."""
        with contextlib.suppress(OSError):
            self._tells.close()
        words, deadline = b"", time.monotonic() + WAIT_SECONDS
        while select.select([self._said], [], [], max(0.0, deadline - time.monotonic()))[0]:
            piece = os.read(self._said, 65536)
            if not piece:
                break
            words += piece
        os.close(self._said)  # if it is not done yet, it goes on by itself
        if words.strip():
            print(f"note: {words.decode().strip()}", file=sys.stderr)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        with super().step(name):
            self._count += 1
            number = self._count
            self.tell("step", number=number, name=name)
            try:
                yield
            except BaseException as error:
                state, message = _outcome(error)
                self.tell("step_end", number=number, state=state, message=message)
                raise
            self.tell("step_end", number=number, state="Completed", message="")

    @contextlib.contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        with super().bar(name, total) as drawn:
            self._count += 1
            recorded = _RecordedBar(self, drawn, number=self._count, name=name, total=total)
            try:
                yield recorded
            finally:
                recorded.show()

    def markdown(self, key: str, text: str) -> None:
        self.tell("markdown", key=key, text=text)

    def table(self, key: str, rows: Sequence[Mapping[str, object]]) -> None:
        self.tell("table", key=key, rows=list(rows))


class _RecordedBar:
    def __init__(self, recorder: Recorder, drawn: Bar, *, number: int, name: str, total: int) -> None:
        self._recorder, self._drawn, self._number, self._name, self._total = recorder, drawn, number, name, total
        self._done, self._note, self._shown = 0, "", 0.0
        self.show()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._drawn.advance(amount, note)
        self._done, self._note = self._done + amount, note or self._note
        if time.monotonic() - self._shown >= PROGRESS_SECONDS:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        text = f"{self._name}: {self._done} of {self._total}" + (f", {self._note}" if self._note else "")
        percent = 100.0 * self._done / max(self._total, 1)
        self._recorder.tell("progress", number=self._number, percent=percent, text=text)


def _outcome(error: BaseException) -> tuple[str, str]:
    """The state a run ends in because of ``error``, and the reason shown with it."""
    if isinstance(error, UserError):
        return "Failed", str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Cancelled", "interrupted"
    if isinstance(error, SystemExit):
        return ("Cancelled", "terminated") if error.code == 143 else ("Failed", f"exit code {error.code}")
    return "Failed", f"{type(error).__name__}: {error}"


# ---- the first door: one stage -----------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Run one stage, recorded as a flow run; the exit code."""
    if not argv or argv[0].startswith("-"):
        print("usage: python -m pipeline.flow <stage>[@<key>] --argument value …", file=sys.stderr)
        return 2
    # A terminated stage unwinds like an interrupted one, so that temporary files and child processes go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs would ignore it
    recorder = Recorder() if server.wanted() else None
    if recorder:
        report_to(recorder)
    try:
        _run_stage(argv[0], argv[1:], recorder)
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    finally:
        if recorder:
            recorder.close()


def _run_stage(name: str, argv: Sequence[str], recorder: Recorder | None) -> None:
    tell = recorder.tell if recorder else lambda event, **details: None
    parent = os.environ.get(server.PARENT)
    begin = {"flow": name.partition("@")[0], "name": name, "parent": parent, "process": os.getpid()}
    begun = False
    try:
        from pipeline.core.stage import execute, parse  # torch comes with it: the recorder imports prefect meanwhile

        call = parse(name, argv)
        lockfile.keep()  # DVC has written it, and will not touch it while this stage runs
        commit, start = _commit(), time.perf_counter()
        tell("begin", **begin, parameters=call.plain_arguments)
        begun = True
        metrics = execute(call)
        _note_commit(name, commit)
        rows = [{"metric": key, "value": value} for key, value in metrics.items()]
        tell("table", key="metrics", rows=rows)
        seconds = time.perf_counter() - start
        tell("summary", task=call.arguments.get("task"), commit=commit, seconds=seconds, metrics=rows)
        tell("end", state="Completed", message="")
    except BaseException as error:
        if not begun:
            tell("begin", **begin, parameters={"arguments": list(argv)})
        state, message = _outcome(error)
        if state == "Failed" and not isinstance(error, UserError):
            tell("log", level=logging.ERROR, text=traceback.format_exc())
        tell("end", state=state, message=message)
        raise


def _commit() -> str | None:
    """The commit of the code and the settings, with a plus if they differ from it; None without git."""
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        if found.returncode != 0:
            return None
        code = ["pipeline", "stages", "params.yaml", "dvc.yaml"]
        same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], capture_output=True).returncode == 0
    except OSError:
        return None
    return found.stdout.strip() + ("" if same else "+")


def _note_commit(name: str, commit: str | None) -> None:
    """Add the commit to the record of a run that has ended."""
    from pipeline.core.artifacts import read_json, write_json
    from pipeline.core.stage import STATE

    path = STATE / "runs" / f"{name}.json"
    write_json(path, {**read_json(path), "commit": commit})


# ---- the recorder's side of the pipe -----------------------------------------------------------------------------


def record() -> None:
    """Read events from stdin and record them as one flow run. One line on stdout if that is not possible."""
    try:
        api = server.ensure()
        if api is None:
            print(f"not recorded: no Prefect server is up and none could be started; see {server.FOLDER}/server.log")
        else:
            server.use(api)
            from prefect.context import refresh_global_settings_context

            refresh_global_settings_context()  # where prefect was imported before, it has read other settings
            threading.Thread(target=_stay_in_use, daemon=True).start()
            with Recording() as recording:
                for line in sys.stdin:
                    details = json.loads(line)
                    getattr(recording, details.pop("event"))(**details)
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())[:200]
        print(f"not fully recorded: {type(error).__name__}: {reason}; see {server.FOLDER}/recorder.log")
    sys.stdout.flush()
    for _ in sys.stdin:  # the stage must not find the pipe closed
        pass


def _stay_in_use() -> None:
    while True:
        server.touch()
        time.sleep(30)


class Recording:
    """One flow run on the server; a method for each event."""

    def __init__(self) -> None:
        from prefect.client.orchestration import get_client

        self._client = get_client(sync_client=True)
        self._run: UUID | None = None
        self._name = ""
        self._tasks: dict[int, UUID] = {}  # the steps that are running
        self._bars: dict[int, UUID] = {}
        self._samples: list[dict[str, Any]] = []
        self._cancelled = threading.Event()

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._run and error[0] is None:
            self.end(state="Crashed", message="the process was killed")
        self._client.__exit__(*error)

    def begin(self, *, flow: str, name: str, parameters: dict[str, Any], parent: str | None, process: int) -> None:
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
            ).id
        self._run, self._name = run, name
        self._client.set_flow_run_state(run, states.Running(), force=True)
        watch_for_cancelling(run, lambda: self._end_stage(process))

    def _end_stage(self, stage: int) -> None:
        """End the stage's process as ``kill`` would, and if it does not listen, for good."""
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
        from prefect.client.schemas.actions import ArtifactUpdate

        if number not in self._bars:
            self._bars[number] = self._artifact("progress", data=percent, description=text)
        else:
            self._client.update_artifact(self._bars[number], ArtifactUpdate(data=percent, description=text))

    def markdown(self, *, key: str, text: str) -> None:
        self._artifact("markdown", key=key, data=text)

    def table(self, *, key: str, rows: list[dict[str, Any]]) -> None:
        if key in SAMPLES:
            self._samples = rows[:SHOWN]
        self._artifact("table", key=key, data=json.dumps(rows))

    def summary(self, *, task: str | None, commit: str | None, seconds: float, metrics: list[dict[str, Any]]) -> None:
        """What a person wants to know of a run that went well, as one text."""
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
    """Call ``act`` once, from a thread, when somebody cancels a run. No worker looks after our runs, so we do."""
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
        # A model may write anything: no picture or link of its making is to be loaded.
        texts = [re.sub(r"([\\`*_\[\]<>|!#])", r"\\\1", " ".join(str(value).split())[:300]) for value in values]
        return f"| {' | '.join(texts)} |"

    return ["", cells(rows[0]), cells(["---"] * len(rows[0])), *(cells(row.values()) for row in rows)]


def _nothing() -> None:
    """What Prefect's models of a flow and a task are made with: the stage is run by its own process."""


def _state(name: str, message: str) -> Any:
    from prefect import states

    return getattr(states, name)(message=message or None)


# ---- the second door: DVC's graph --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Graph:
    """The stages to look at, in an order in which each comes after those it needs.

    needs: for each stage, the stages whose outputs it reads. changed: those that DVC would run as things stand.
    """

    needs: dict[str, list[str]]
    changed: frozenset[str]


def read_graph(targets: Sequence[str]) -> Graph:
    """DVC's graph above ``targets`` (all of it, if there are none)."""
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            whole = repo.index.graph  # stage -> the stages it needs
            asked = [stage for target in targets for stage in repo.stage.collect(target)] or list(whole.nodes)
            chosen = set(asked).union(*(networkx.descendants(whole, stage) for stage in asked))
            # The longest tails first, so that no long chain is left for the end.
            height = {stage: len(networkx.ancestors(whole, stage)) for stage in chosen}
            order = networkx.lexicographical_topological_sort(
                whole.subgraph(chosen).reverse(), key=lambda stage: (-height[stage], stage.addressing)
            )
            needs = {stage.addressing: sorted(dep.addressing for dep in whole.successors(stage)) for stage in order}
            with repo.lock:
                changed = frozenset(stage.addressing for stage in chosen if stage.changed())
    except DvcException as error:
        raise UserError(f"expected a graph that DVC can read, got: {' '.join(str(error).split())}") from None
    return Graph(needs, changed)


@dataclass(frozen=True)
class Outcome:
    """How a stage of the graph ended: done, unchanged, failed or skipped, and why."""

    stage: str
    state: str
    seconds: float = 0.0
    reason: str = ""


def run_graph(targets: Sequence[str], *, jobs: int, tell: Callable[[Outcome | str], None]) -> list[Outcome]:
    """Run what is stale of DVC's graph, ``jobs`` stages side by side, as the flow ``selfadapt``.

    ``tell`` hears the name of a stage that starts, and every outcome. When a stage fails, those that need it are
    skipped and all others still run.
    """
    api = server.ensure()
    if api is None:
        raise UserError(
            f"expected a Prefect server, but none is up and none could be started (see {server.FOLDER}/server.log); "
            "run 'dvc repro', which needs none"
        )
    server.use(api)
    # What Prefect logs of the flow is for its own pages: the terminal hears of it from ``tell``.
    os.environ |= {"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    from prefect import allow_failure, flow, states, task
    from prefect.cache_policies import NO_CACHE
    from prefect.runtime import flow_run, task_run
    from prefect.task_runners import ThreadPoolTaskRunner

    graph = read_graph(targets)
    outcomes: dict[str, Outcome] = {}
    children: set[subprocess.Popen[bytes]] = set()
    ending = threading.Event()

    def cancel() -> None:
        ending.set()
        _end(children)

    def conclude(outcome: Outcome) -> Any:
        outcomes[outcome.stage] = outcome
        tell(outcome)
        if outcome.state == "failed":
            return states.Failed(message=outcome.reason)
        if outcome.state == "skipped":
            return states.Cancelled(name="Skipped", message=outcome.reason)
        return states.Completed(name="Cached" if outcome.state == "unchanged" else None, message=outcome.reason or None)

    # DVC is the only cache: Prefect's is off, and so is the keeping of results.
    @task(cache_policy=NO_CACHE, persist_result=False)
    def run_stage(stage: str) -> Any:
        if ending.is_set():
            return conclude(Outcome(stage, "skipped", reason="interrupted"))
        needed = [outcomes.get(other, Outcome(other, "failed")) for other in graph.needs[stage]]
        if missing := [outcome.stage for outcome in needed if outcome.state in ("failed", "skipped")]:
            return conclude(Outcome(stage, "skipped", reason=f"needs {', '.join(missing)}"))
        if stage not in graph.changed and all(outcome.state == "unchanged" for outcome in needed):
            return conclude(Outcome(stage, "unchanged"))
        tell(stage)
        outcome = _repro(stage, parent=str(task_run.id), children=children)
        interrupted = ending.is_set() and outcome.state == "failed"
        return conclude(replace(outcome, reason="interrupted") if interrupted else outcome)

    workers: Any = ThreadPoolTaskRunner(max_workers=jobs)

    @flow(
        name="selfadapt",
        flow_run_name=f"up to {', '.join(targets)}" if targets else "everything",
        task_runner=workers,
        persist_result=False,
    )
    def selfadapt(targets: list[str], jobs: int) -> Any:
        watch_for_cancelling(UUID(str(flow_run.id)), cancel)
        waiting = {stage: set(needs) for stage, needs in graph.needs.items()}
        futures: dict[str, Any] = {}
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            for _ in range(len(graph.needs)):
                # Only what is ready is submitted: a task that waited for another would hold a worker meanwhile.
                for stage in [stage for stage, needs in waiting.items() if not needs]:
                    del waiting[stage]
                    # Prefect draws these edges; to its mind a stage cannot follow one that was skipped.
                    needed = [
                        allow_failure(futures[other])
                        for other in graph.needs[stage]
                        if outcomes[other].state != "skipped"
                    ]
                    named = run_stage.with_options(name=stage.partition("@")[0], task_run_name=stage)
                    futures[stage] = named.submit(stage, wait_for=needed, return_state=False)
                    futures[stage].add_done_callback(lambda _, stage=stage: ended.put(stage))
                stage = ended.get()
                for needs in waiting.values():
                    needs.discard(stage)
        except BaseException:
            cancel()  # before Prefect waits for the threads that wait for them
            raise
        if ending.is_set():
            return states.Cancelled(message=CANCELLED)
        if failed := [outcome.stage for outcome in outcomes.values() if outcome.state == "failed"]:
            return states.Failed(message=f"failed: {', '.join(failed)}")
        return states.Completed()

    selfadapt(list(targets), jobs, return_state=True)
    return [outcomes.get(stage, Outcome(stage, "failed", reason="ended without an outcome")) for stage in graph.needs]


def _repro(stage: str, *, parent: str, children: set["subprocess.Popen[bytes]"]) -> Outcome:
    """Run one stage by DVC, its words going to a file."""
    start = time.monotonic()
    path = Path(".selfadapt/logs") / f"{stage}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The stages' ``python`` is this one, as in an activated environment.
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {server.PARENT: parent, "PATH": search}
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    for attempt in range(BUSY_ATTEMPTS):
        with path.open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            children.add(child)
            code = child.wait()
            children.discard(child)
        said = path.read_text(encoding="utf-8", errors="replace")
        if code == 0 or not any(words in said for words in BUSY):
            break
        time.sleep(min(0.2 * 1.5**attempt, 5.0) * random.uniform(0.5, 1.5))
    seconds = time.monotonic() - start
    if code != 0:
        errors = [line.removeprefix("error: ") for line in said.splitlines() if line.startswith("error: ")]
        last = [
            line for line in said.splitlines() if line.strip() and not line.startswith("ERROR: failed to reproduce")
        ]
        reason = errors[-1] if errors else last[-1].strip() if last else f"exit code {code}"
        return Outcome(stage, "failed", seconds, f"{reason} ({path})")
    if "didn't change, skipping" in said:
        return Outcome(stage, "unchanged", seconds)
    return Outcome(
        stage, "done", seconds, "restored from DVC's run cache" if "is cached - skipping run" in said else ""
    )


def _end(children: set["subprocess.Popen[bytes]"]) -> None:
    """End what still runs: as by Ctrl-C first, which DVC and the stages answer by cleaning up."""
    for sign, seconds in ((signal.SIGINT, 15.0), (signal.SIGKILL, 5.0)):
        for child in list(children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, sign)
        for child in list(children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(seconds)


if __name__ == "__main__":
    code = warm.run("pipeline.flow", sys.argv[1:])
    sys.exit(main(sys.argv[1:]) if code is None else code)
