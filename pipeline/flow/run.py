"""DVC's graph as a flow: its stages side by side, each by DVC."""

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from pipeline.core.config import SHARE
from pipeline.core.errors import UserError
from pipeline.flow import server, warm
from pipeline.flow.recorder import CANCELLED, watch_for_cancelling

# Two DVC processes meet at DVC's own locks for moments only, but what a run that was killed has left running holds them
# until it ends: up to half an hour is waited.
BUSY = ("Unable to acquire lock", "is busy")
BUSY_ATTEMPTS = 400


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
    with ThreadPoolExecutor(1) as pool:
        ensured = pool.submit(server.ensure)  # side by side: each of the three takes seconds
        graph = read_graph(targets)
        if graph.changed:
            warm.prepare()
        api = ensured.result()
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
        outcome = _repro(stage, parent=str(task_run.id), children=children, jobs=jobs)
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


def _repro(stage: str, *, parent: str, children: set["subprocess.Popen[bytes]"], jobs: int) -> Outcome:
    """Run one stage by DVC, its words going to a file. jobs: how many share the cores."""
    start = time.monotonic()
    path = Path(".selfadapt/logs") / f"{stage}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The stages' ``python`` is this one, as in an activated environment.
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {server.PARENT: parent, "PATH": search}
    # Threads of two stages that wait for each other on the same cores cost more than they bring: two stages of one
    # thread each do 1.5 to 2 times the work of one stage of two.
    environment.setdefault(SHARE, str(max(1, cores() // jobs)))
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


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end(children: set["subprocess.Popen[bytes]"]) -> None:
    """End what still runs: as by Ctrl-C first, which DVC and the stages answer by cleaning up."""
    for sign, seconds in ((signal.SIGINT, 15.0), (signal.SIGKILL, 5.0)):
        for child in list(children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, sign)
        for child in list(children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
