"""The flow on several machines: each stage that another folder can run is a task on Dask's workers."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import UUID

import dask
import prefect
from prefect import allow_failure, states, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run, task_run
from prefect_dask import DaskTaskRunner

from pipeline.core.artifacts import write_json
from pipeline.core.errors import UserError
from pipeline.flow import server, tags
from pipeline.flow.machines import places, record, worker
from pipeline.flow.machines.hub import Hub
from pipeline.flow.recorder import CANCELLED, watch_for_cancelling
from pipeline.flow.run import LOGS, REPRO, Graph, Outcome, Run, outcome_of, run_by_dvc, state_of

TOUCH_SECONDS = 30.0  # the project's own server ends where nobody says that it is in use, and workers say it elsewhere
# The runs at work in this process. Prefect sends the flow along with each task, by its name: it can hold nothing.
_runs: dict[str, "RunOnMachines"] = {}


def run_on(on: str, graph: Graph, targets: Sequence[str], **said: Any) -> "RunOnMachines":
    """Run a graph on the machines ``on``; the run, when it has ended. said: as RunOnMachines takes it, and ``name``."""
    name = said.pop("name")
    run = RunOnMachines(graph, **said)
    try:
        with (
            places.scheduler(on, run.jobs, run.children, run.environment) as address,
            Hub(address, api=os.environ["PREFECT_API_URL"], begun=run.tell) as run.hub,
            _touched(),
        ):
            decorator: Any = prefect.flow
            runner = DaskTaskRunner(address=address)
            whole = decorator(
                walk_graph, name="selfadapt", flow_run_name=name, task_runner=runner, persist_result=False
            )
            _runs[address] = run
            whole(list(targets), run.jobs, address, return_state=True)
    finally:
        _runs.clear()
        run.children.close()
    if run.trouble:
        raise UserError(f"expected to fetch what the workers have made, but {run.trouble}; run this again")
    return run


@contextlib.contextmanager
def _touched() -> Iterator[None]:
    """Keep the project's own Prefect server up."""
    over = threading.Event()

    def touch() -> None:
        while not over.wait(TOUCH_SECONDS):
            server.touch()

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def walk_graph(targets: list[str], jobs: int, on: str) -> Any:
    """The flow's body. on: the scheduler's address."""
    run = _runs[on]
    watch_for_cancelling(UUID(str(flow_run.id)), run.cancel)
    with tags.of_the_flow_alone():
        run.walk_all()
    server.ensure()  # to hear how it ended
    if run.ending.is_set():
        return states.Cancelled(message=CANCELLED)
    failed = [outcome.stage for outcome in run.outcomes.values() if outcome.state == "failed"]
    if failed or run.trouble:
        return states.Failed(message=run.trouble or f"failed: {', '.join(failed)}")
    return states.Completed()


def run_away(order: dict[str, Any]) -> Any:
    """A task on a worker: one stage."""
    result = worker.run_stage(order, str(task_run.id))
    state = state_of(outcome_of(order["stage"], result["code"], result["said"], result["seconds"]))
    state.data = result
    return state


def run_here(address: str, stage: str) -> Any:
    """A task in this process: a stage that is not run, or not by a worker."""
    return state_of(_runs[address].bring_up_to_date(stage, parent=str(task_run.id)))


class RunOnMachines(Run):
    """One run of a graph on several machines. hub: its workers."""

    hub: Hub

    def __init__(self, graph: Graph, **said: Any) -> None:
        super().__init__(graph, **said)
        self._away: dict[str, Any] = {}  # the futures of stages that workers have
        self._states: dict[str, Any] = {}  # how stages that have ended stand in Prefect
        self._elsewhere: set[str] = set()  # stages whose outputs are in the cache or the remote, and not yet here
        self._pushed: set[str] = set()
        self._submitting, self._moving = threading.Lock(), threading.Lock()
        self.trouble = ""  # why not all that was made is here
        self._jobs_here = threading.Semaphore(self.jobs)

    def cancel(self) -> None:
        """Start no further stage, and end those that run, on whatever machine."""
        self.ending.set()
        for future in list(self._away.values()):
            with contextlib.suppress(Exception):  # the scheduler may have gone
                future.wrapped_future.cancel(reason="interrupted")
        super().cancel()

    def walk_all(self) -> None:
        """Bring all stages up to date; then fetch what workers have made and nothing here has asked for."""
        with ThreadPoolExecutor(len(self.graph.needs) or 1) as pool:

            def submit(stage: str, needed: list[Any]) -> Future[None]:
                return pool.submit(copy_context().run, self._bring, stage)

            self.walk(submit, at_once=len(self.graph.needs))  # Dask knows how many workers there are
        if not self.ending.is_set():
            self.trouble = self._fetch(list(self._elsewhere))

    def _bring(self, stage: str) -> None:
        """Bring one stage up to date, here or on a worker."""
        if stage in self.graph.apart and self.without_running(stage) is None:
            self.bring_up_to_date(stage, parent="")
            return
        here = _task(run_here, stage)
        with self._jobs_here:
            self._states[stage] = here(self.hub.address, stage, wait_for=self._edges(stage), return_state=True)

    def _edges(self, stage: str) -> list[Any]:
        """For Prefect to draw. States, not futures: Dask would compute a future again whose worker has gone."""
        needed = [other for other in self.graph.needs[stage] if self.outcomes[other].state != "skipped"]
        return [allow_failure(self._states[other]) for other in needed if other in self._states]

    def _begin(self, stage: str) -> None:
        if stage not in self.graph.apart:  # a worker says when it begins
            self.tell(stage)

    def _repro(self, stage: str, parent: str) -> Outcome:
        if stage in self.graph.apart:
            return self._repro_away(stage)
        needed = [other for other in self.graph.needs[stage] if other in self._elsewhere]
        if reason := self._fetch(needed):
            return Outcome(stage, "failed", reason=reason)
        return super()._repro(stage, parent)

    # ---- on a worker -------------------------------------------------------------------------------------------------

    def _repro_away(self, stage: str) -> Outcome:
        """Have a worker run a stage, and take over what it has to tell."""
        gpus = self.gpus_asked_for if stage in self.graph.computing else 0
        self.hub.wait(gpus, self.ending.is_set)
        if reason := self._push(stage):
            return Outcome(stage, "failed", reason=reason)
        try:
            future = self._submitted(stage, gpus)
        except Exception as error:  # Dask's: its scheduler has gone
            return Outcome(stage, "failed", reason=f"{type(error).__name__}: {error}")
        if future is None:
            return Outcome(stage, "failed", reason="interrupted")
        try:
            result = future.result(raise_on_failure=False)
            state = future.state
        except Exception as error:  # Dask's: no worker has lived to its end
            return self._lost(stage, future, error)
        finally:
            del self._away[stage]
            future.wrapped_future.release()  # kept, it would be computed again if its worker went
        state.data = stage  # Prefect looks at what it has; without a result it would fail
        self._states[stage] = state
        return self._taken(stage, result)

    def _submitted(self, stage: str, gpus: int) -> Any:
        """The future of a stage that the next worker gets; None where the run ends."""
        away = _task(run_away, stage)
        with self._submitting:  # Dask's annotations are those of the whole process
            if self.ending.is_set():
                return None
            with dask.annotate(resources=worker.resources(self.hub.token, 1, gpus)):
                future: Any = away.submit(self._order(stage), wait_for=self._edges(stage))
            self._away[stage] = future
        return future

    def _order(self, stage: str) -> dict[str, Any]:
        texts = {name: Path(name).read_text(encoding="utf-8") for name in worker.SENT if Path(name).is_file()}
        return {
            "stage": stage,
            "needs": self.graph.needs[stage],
            "texts": texts,
            "shared": self.hub.shared,
            "api": os.environ["PREFECT_API_URL"],
            "beside": self.hub.beside(),
            "topic": self.hub.token,
        }

    def _taken(self, stage: str, result: Any) -> Outcome:
        """What became of a stage that a worker has run: its words go to the log, its entry to DVC's record."""
        if not isinstance(result, dict):
            return Outcome(stage, "failed", reason=f"{type(result).__name__}: {result}")
        log = LOGS / f"{stage}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(result["said"], encoding="utf-8")
        if result["code"] is None:
            return Outcome(stage, "failed", result["seconds"], result["said"])
        outcome = outcome_of(stage, result["code"], result["said"], result["seconds"])
        if outcome.state != "failed":
            try:
                with self._moving:
                    record.merge(stage, result["entry"])
            except UserError as error:
                return Outcome(stage, "failed", result["seconds"], str(error))
            commit = tags.commit()  # the worker's clone may stand on another one that does the same
            for name, told in result["records"].items():
                write_json(record.RUNS / name, {**told, "commit": commit})
            self._elsewhere.add(stage)
            self._pushed.add(stage)
        return outcome

    def _lost(self, stage: str, future: Any, error: Exception) -> Outcome:
        """The outcome of a stage that Dask has given up; in Prefect it would stay as it was."""
        from distributed import KilledWorker

        reason = f"{type(error).__name__}: {error}"
        if self.ending.is_set():
            reason = "interrupted"
        elif isinstance(error, KilledWorker):
            reason = "ended each worker that it was given to; on a worker's machine, look for what killed it: memory?"
        state: Any = states.Cancelled(message=reason) if self.ending.is_set() else states.Failed(message=reason)
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            client.set_task_run_state(future.task_run_id, state, force=True)
        return Outcome(stage, "failed", reason=reason)

    # ---- what is moved -----------------------------------------------------------------------------------------------

    def _push(self, stage: str) -> str:
        """Push what a stage needs, where workers have another cache than this folder; why that failed, or nothing."""
        if self.hub.shared is not False:
            return ""
        with self._moving:
            needed = [other for other in self.graph.needs[stage] if other not in self._pushed]
            reason = self._move("push", needed)
            self._pushed.update(needed)
        return reason

    def _fetch(self, stages: Sequence[str]) -> str:
        """Bring here what workers have made; why that failed, or nothing."""
        with self._moving:
            reason = self._move("checkout" if self.hub.shared else "pull", ["--force", *stages] if stages else [])
            self._elsewhere.difference_update(stages)
        return reason

    def _move(self, how: str, words: Sequence[str]) -> str:
        """Have DVC push, pull or check out; why that failed, or nothing."""
        if not words:
            return ""
        log = LOGS / f"{how}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", REPRO, "--wait-for-lock", how, *words]
        code, said = run_by_dvc(
            self.children, command, log=log, environment=self._environment(""), ending=self.ending.is_set
        )
        if code is None:
            return said
        return outcome_of(how, code, said, 0.0).reason if code else ""


def _task(function: Callable[..., Any], stage: str) -> Any:
    """A task of Prefect's, shown under the stage's name. DVC is the only cache: Prefect's is off."""
    decorator: Any = task
    name = stage.partition("@")[0]
    return decorator(function, name=name, task_run_name=stage, cache_policy=NO_CACHE, persist_result=False)
