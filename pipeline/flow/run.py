"""DVC's graph as a Prefect flow: its stages side by side, each by ``dvc repro --single-item``.

Here, or on other machines (``machines``).
"""

import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from pipeline.core.config import SHARE
from pipeline.core.errors import UserError
from pipeline.flow import gpus, identity, live, living, lock, server, tags, warm
from pipeline.flow.children import LOOK_SECONDS, Children
from pipeline.flow.machines import places, record
from pipeline.flow.recorder import CANCELLED, watch_for_cancelling

LOGS = Path(".selfadapt/logs")
REPRO = "pipeline.flow.repro"  # DVC, quicker with many stages
# What DVC says where it finds its locks taken.
BUSY = ("Unable to acquire lock. Most likely", "is busy, it is being blocked by")

ITS_OWN = ("ERROR: failed to reproduce", "Running stage ", "> ")  # lines of DVC's, which say nothing of the stage


@dataclass(frozen=True)
class Graph:
    """The stages to look at, in an order in which each comes after those it needs.

    needs: for each stage, the stages whose outputs it reads. changed: those that DVC would run as things stand. apart:
    those that another folder can run, given what other stages have made. computing: those that run a model, on GPUs
    where the settings say so.
    """

    needs: dict[str, list[str]]
    changed: frozenset[str]
    apart: frozenset[str] = frozenset()
    computing: frozenset[str] = frozenset()


def read_graph(targets: Sequence[str], *, restore: bool = False) -> Graph:
    """DVC's graph above ``targets`` (all of it, if there are none). Raises UserError where DVC can't read it.

    restore: first bring back from the cache or the remote what DVC's record knows and the folder lacks.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    patience = lock.Patience()
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # it would draw bars of its own on the terminal
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
            if restore:
                record.restore(repo, chosen)
            changed = frozenset(stage.addressing for stage in chosen if _changed(repo, stage, patience))
            computing = frozenset(stage.addressing for stage in chosen if _computes(stage))
    except DvcException as error:
        raise UserError(
            f"expected a graph that DVC can read, got: {' '.join(str(error).split())}; correct it"
        ) from None
    return Graph(needs, changed, _apart(whole.nodes, chosen), computing)


def _computes(stage: Any) -> bool:
    return any("compute" in getattr(dep, "params", ()) for dep in stage.deps)


def _apart(whole: Iterable[Any], chosen: Iterable[Any]) -> frozenset[str]:
    """The stages that read nothing but what stages have made, and write nothing that DVC does not keep.

    So the plan, the code's fingerprints, one's own rows and the reports are not among them: they read the folder's own
    files, or folders into which several stages write.
    """
    from dvc.dependency import ParamsDependency

    made = {out.fs_path for stage in whole for out in stage.outs}

    def travels(stage: Any) -> bool:
        read = [Path(dep.fs_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        inside = all(any(str(path) in made for path in (dep, *dep.parents)) for dep in read)
        return bool(read) and inside and all(out.use_cache for out in stage.outs)

    return frozenset(stage.addressing for stage in chosen if travels(stage))


def _changed(repo: Any, stage: Any, patience: lock.Patience) -> bool:
    """Whether DVC would run a stage as things stand. Waits for other DVC processes."""
    from dvc.lock import LockError

    while True:
        try:
            with repo.lock:  # for one stage at a time: another run gives up a lock that it waits for too long
                return stage.changed()
        except LockError:
            if not patience.pause():
                raise UserError(patience.sentence()) from None


@dataclass(frozen=True)
class Outcome:
    """How a stage of the graph ended: done, unchanged, failed or skipped, and why."""

    stage: str
    state: str
    seconds: float = 0.0
    reason: str = ""


Tell = Callable[[Graph | Outcome | str], None]


def run_graph(targets: Sequence[str], *, jobs: int, tell: Tell, on: str = "") -> list[Outcome]:
    """Run what is stale of DVC's graph, ``jobs`` stages side by side, as the flow ``selfadapt``.

    tell: hears the graph, the name of a stage that starts, and every outcome. When a stage fails, those that need it
    are skipped and all others still run. on: the machines to run on, as ``machines.places`` reads it; empty for this
    one.
    """
    identity.complete()
    if on:
        places.check(on)
    graph = read_graph(targets, restore=bool(on))
    if not graph.changed:  # nothing to record: no server is waited for
        tell(graph)
        for outcome in (outcomes := [Outcome(stage, "unchanged") for stage in graph.needs]):
            tell(outcome)
        return outcomes
    warm.prepare()
    if (api := server.ensure()) is None:
        raise UserError(
            f"expected a Prefect server, but none is up and none could be started (see {server.FOLDER}/server.log); "
            "run 'dvc repro', which needs none"
        )
    server.stay_in_use()  # stages do so while they are recorded, and not all are
    living.bury(api)
    tell(graph)
    environment = dict(os.environ)
    server.use(api)
    # What Prefect logs of the flow is for its own pages: the terminal hears of it from ``tell``. It reads this as
    # it is first imported.
    os.environ |= {
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # of a server that is away, at length
    }
    logging.raiseExceptions = False  # else Prefect's own lines that cannot be sent are reported on the terminal
    from prefect import tags as tagged

    name = f"up to {', '.join(targets)}" if targets else "everything"
    with tagged(*tags.tags(tags.commit())):
        if on:
            from pipeline.flow.machines.flow import run_on

            run: Run = run_on(on, graph, targets, jobs=jobs, tell=tell, environment=environment, name=name)
        else:
            run = Run(graph, jobs=jobs, tell=tell, environment=environment)
            try:
                _flow(run, name=name)(list(targets), jobs, return_state=True)
            except Exception:
                if len(run.outcomes) < len(graph.needs):
                    raise
                # The server has gone, and how the flow ended is not shown there; all that was to be made is made.
            finally:
                run.children.close()
    if run.held:
        living.let_go(run.held)
    lost = "ended without an outcome"
    return [run.outcomes.get(stage, Outcome(stage, "failed", reason=lost)) for stage in graph.needs]


class Run:
    """One run of a graph. outcomes: how the stages ended so far. children: the processes at work.

    held: says that this process will end the flow run.
    environment: for the stages. Prefect's client, in this process, needs another one.
    """

    def __init__(self, graph: Graph, *, jobs: int, tell: Tell, environment: Mapping[str, str]) -> None:
        self.graph, self.jobs, self.tell, self.environment = graph, jobs, tell, environment
        self.outcomes: dict[str, Outcome] = {}
        self.children = Children()
        self.ending = threading.Event()
        self.held: IO[bytes] | None = None
        self.gpus, self.gpus_asked_for = gpus.Pool(gpus.here()), gpus.asked_for()

    def cancel(self) -> None:
        """Start no further stage, and end those that run."""
        self.ending.set()
        self.children.end()

    def walk(self, submit: Callable[[str, list[Any]], Any], *, at_once: int) -> None:
        """Have every stage brought up to date, each once those it needs have ended.

        submit: takes a stage and the futures of those it follows, and gives its own future. at_once: stages that may be
        submitted and not ended. What becomes ready later may then go first, if the graph has it before the others.
        """
        waiting = {stage: set(needs) for stage, needs in self.graph.needs.items()}
        futures: dict[str, Any] = {}
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        try:
            for done in range(len(self.graph.needs)):
                # Only what is ready is submitted: a task that waited for another would hold a worker meanwhile.
                free = at_once - (len(futures) - done)
                for stage in [stage for stage, needs in waiting.items() if not needs][:free]:
                    del waiting[stage]
                    # To Prefect's mind a stage cannot follow one that was skipped.
                    needed = [other for other in self.graph.needs[stage] if self.outcomes[other].state != "skipped"]
                    futures[stage] = submit(stage, [futures[other] for other in needed])
                    futures[stage].add_done_callback(lambda _, stage=stage: ended.put(stage))
                stage = ended.get()
                for needs in waiting.values():
                    needs.discard(stage)
        except BaseException:
            self.cancel()  # before Prefect waits for the threads that wait for them
            raise

    def bring_up_to_date(self, stage: str, *, parent: str) -> Outcome:
        """Run one stage, if it is stale and all it needs is there. parent: the task run it is shown under."""
        outcome = self.without_running(stage)
        if outcome is None:
            self._begin(stage)
            outcome = self._repro(stage, parent)
            if self.ending.is_set() and outcome.state == "failed":
                outcome = replace(outcome, reason="interrupted")
        self.outcomes[stage] = outcome
        self.tell(outcome)
        return outcome

    def without_running(self, stage: str) -> Outcome | None:
        """The outcome of a stage that need not or cannot be run; None for all others."""
        if self.ending.is_set():
            return Outcome(stage, "skipped", reason="interrupted")
        needed = [self.outcomes.get(other, Outcome(other, "failed")) for other in self.graph.needs[stage]]
        if missing := [outcome.stage for outcome in needed if outcome.state in ("failed", "skipped")]:
            return Outcome(stage, "skipped", reason=f"needs {', '.join(missing)}")
        if stage not in self.graph.changed and all(outcome.state == "unchanged" for outcome in needed):
            return Outcome(stage, "unchanged")
        return None

    def _begin(self, stage: str) -> None:
        self.tell(stage)

    def _repro(self, stage: str, parent: str) -> Outcome:
        """Run one stage by DVC, whose words go to a file."""
        start = time.monotonic()
        log = LOGS / f"{stage}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # DVC itself waits without end for the lock that it needs for moments: it would fail after three seconds, even
        # when the stage has done its work. Where it finds another process at work on the stage's files, it fails.
        command = [sys.executable, "-m", REPRO, "--wait-for-lock", "repro", "--single-item", stage]
        live.forget(stage)  # what it left where it was killed
        count = self.gpus_asked_for if stage in self.graph.computing else 0
        with self.gpus.lent(count, self.ending.is_set) as lent:
            environment = self._environment(parent) | ({gpus.VISIBLE: ",".join(lent)} if lent else {})
            code, said = run_by_dvc(self.children, command, log=log, environment=environment, ending=self.ending.is_set)
        seconds = time.monotonic() - start
        if code is None:
            return Outcome(stage, "failed", seconds, said)
        return outcome_of(stage, code, said, seconds)

    def _environment(self, parent: str) -> dict[str, str]:
        # The stages' ``python`` is this one, as in an activated environment.
        search = f"{Path(sys.executable).parent}{os.pathsep}{self.environment.get('PATH', '')}"
        environment = {**self.environment, server.PARENT: parent, "PATH": search}
        # Threads of two stages that wait for each other on the same cores cost more than they bring: two stages of one
        # thread each do 1.5 to 2 times the work of one stage of two.
        environment.setdefault(SHARE, str(max(1, cores() // self.jobs)))
        return environment


def run_by_dvc(
    children: Children,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    ending: Callable[[], bool],
) -> tuple[int | None, str]:
    """Run a command of DVC's, again where others are in its way; its exit code and its words.

    The code is None if it has waited in vain: then the words say for whom. ending: whether it is to be ended.
    """
    patience = lock.Patience()

    def go_on(process: int) -> bool:
        return not _waits_for_lock(process) or patience.spend(LOOK_SECONDS)

    while True:
        code = children.run(command, log=log, environment=environment, waiting=go_on)
        said = log.read_text(encoding="utf-8", errors="replace")
        if code == 0 or ending() or not (patience.is_over or any(words in said for words in BUSY)):
            return code, said
        if not patience.pause():
            return None, patience.sentence()


def _waits_for_lock(process: int) -> bool:
    """Whether a DVC process waits for another one: it runs no stage, and another one holds DVC's lock."""
    import psutil

    owner = lock.owner()
    try:
        return owner is not None and owner.pid != process and not psutil.Process(process).children()
    except psutil.Error:
        return False


def outcome_of(stage: str, code: int, said: str, seconds: float) -> Outcome:
    """What became of a stage. code, said: DVC's exit code and its words."""
    if code != 0:
        lines = [line for line in said.splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        others = [line.strip() for line in lines if not line.startswith(ITS_OWN)]
        ended = f"killed by signal {_signal(code, said)}" if _signal(code, said) else ""
        reason = next(filter(None, [*errors[-1:], ended, *others[-1:], f"exit code {code}"]))
        return Outcome(stage, "failed", seconds, f"{reason} ({LOGS / stage}.log)")
    if "didn't change, skipping" in said:
        return Outcome(stage, "unchanged", seconds)
    restored = "is cached - skipping run" in said
    return Outcome(stage, "done", seconds, "restored from DVC's run cache" if restored else "")


def _signal(code: int, said: str) -> int:
    """The signal that ended a stage or its DVC; 0 for none. code, said: DVC's exit code, minus a signal, and words."""
    if told := re.search(r"exited with (-?\d+)", said):
        code = int(told[1])
        if 128 < code <= 128 + 64:  # as a shell says it
            return code - 128
    return max(0, -code)


def _flow(run: Run, *, name: str) -> Any:
    """The Prefect flow of a run, to be called with what it shows as its parameters: the targets and the jobs."""
    from prefect import allow_failure, flow, states, task
    from prefect.cache_policies import NO_CACHE
    from prefect.runtime import flow_run, task_run
    from prefect.task_runners import ThreadPoolTaskRunner

    # DVC is the only cache: Prefect's is off, and so is the keeping of results.
    @task(cache_policy=NO_CACHE, persist_result=False)
    def run_stage(stage: str) -> Any:
        return state_of(run.bring_up_to_date(stage, parent=str(task_run.id)))

    def submit(stage: str, needed: list[Any]) -> Any:
        named = run_stage.with_options(name=stage.partition("@")[0], task_run_name=stage)
        edges = [allow_failure(future) for future in needed]  # for Prefect to draw
        return named.submit(stage, wait_for=edges, return_state=False)

    workers: Any = ThreadPoolTaskRunner(max_workers=run.jobs)

    @flow(name="selfadapt", flow_run_name=name, task_runner=workers, persist_result=False)
    def selfadapt(targets: list[str], jobs: int) -> Any:
        watch_for_cancelling(UUID(str(flow_run.id)), run.cancel)
        run.held = living.hold(str(flow_run.id))
        with tags.of_the_flow_alone():
            run.walk(submit, at_once=run.jobs)
        server.ensure()  # to hear how it ended: one that has gone meanwhile would be asked for minutes
        if run.ending.is_set():
            return states.Cancelled(message=CANCELLED)
        if failed := [outcome.stage for outcome in run.outcomes.values() if outcome.state == "failed"]:
            return states.Failed(message=f"failed: {', '.join(failed)}")
        return states.Completed()

    return selfadapt


def state_of(outcome: Outcome) -> Any:
    """How Prefect shows an outcome."""
    from prefect import states

    if outcome.state == "failed":
        return states.Failed(message=outcome.reason)
    if outcome.state == "skipped":
        return states.Cancelled(name="Skipped", message=outcome.reason)
    return states.Completed(name="Cached" if outcome.state == "unchanged" else None, message=outcome.reason or None)


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
