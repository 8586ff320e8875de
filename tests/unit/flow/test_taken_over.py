"""What a coordinator makes of what a worker, or Dask in its place, says of a stage."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dvc.repo import Repo

pytest.importorskip("prefect_dask", reason="several machines need the extra selfadapt[dask]")

from distributed import KilledWorker

from pipeline.flow.machines import flow
from pipeline.flow.run import Graph

ENTRY = "  train:\n    cmd: touch a\n    outs:\n    - path: a\n      hash: md5\n      md5: d41d\n"
WELL = {"code": 0, "said": "Running stage", "seconds": 3.5, "worker": "one", "entry": ENTRY, "records": {}}


class Future:
    """As prefect-dask's: of a result, or of an error of Dask's."""

    def __init__(self, result: Any) -> None:
        self._result, self.released, self.task_run_id = result, False, "the task run"
        self.wrapped_future = SimpleNamespace(release=self.release, cancel=lambda **_: None)
        self.state = SimpleNamespace(data=result)

    def release(self) -> None:
        self.released = True

    def result(self, raise_on_failure: bool) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> flow.RunOnMachines:
    """A run of one stage, which a worker can take, in its folder."""
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    graph = Graph({"train": []}, frozenset({"train"}), frozenset({"train"}))
    made = flow.RunOnMachines(graph, jobs=1, tell=lambda news: None, environment={})
    hub: Any = SimpleNamespace(wait=lambda gpus, ending: None, shared=True)
    made.hub = hub
    return made


def given(run: flow.RunOnMachines, monkeypatch: pytest.MonkeyPatch, result: Any) -> Future:
    future = Future(result)

    def submitted(stage: str, gpus: int) -> Future:
        run._away[stage] = future
        return future

    monkeypatch.setattr(run, "_submitted", submitted)
    return future


def test_what_a_worker_has_run_is_in_the_record_and_its_future_is_let_go(
    run: flow.RunOnMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"train.json": {"stage": "train", "seconds": 3.0, "commit": "theirs"}}
    future = given(run, monkeypatch, {**WELL, "records": told})
    outcome = run.bring_up_to_date("train", parent="")
    assert (outcome.state, outcome.seconds) == ("done", 3.5)
    assert future.released and not run._away
    assert Path("dvc.lock").read_text() == f"schema: '2.0'\nstages:\n{ENTRY}"
    assert '"seconds": 3.0' in Path(".selfadapt/runs/train.json").read_text()
    assert Path(".selfadapt/logs/train.log").read_text() == "Running stage"


def test_a_stage_that_failed_leaves_the_record_alone(run: flow.RunOnMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    given(run, monkeypatch, {**WELL, "code": 1, "said": "error: expected more memory", "entry": ""})
    outcome = run.bring_up_to_date("train", parent="")
    assert (outcome.state, outcome.reason) == ("failed", "expected more memory (.selfadapt/logs/train.log)")
    assert not Path("dvc.lock").exists()


def test_an_entry_that_is_none_is_said(run: flow.RunOnMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    given(run, monkeypatch, {**WELL, "entry": ""})
    outcome = run.bring_up_to_date("train", parent="")
    assert outcome.state == "failed" and outcome.reason.startswith("expected the record of train as DVC writes it")


def test_a_stage_that_ends_its_workers_fails_in_prefect_too(
    run: flow.RunOnMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    client = SimpleNamespace(set_task_run_state=lambda run, state, force: states.append((run, state.type.value)))
    monkeypatch.setattr(flow, "get_client", lambda sync_client: nullcontext(client))
    future = given(run, monkeypatch, KilledWorker("train", SimpleNamespace(address="tcp://one"), 3))
    outcome = run.bring_up_to_date("train", parent="")
    assert outcome.state == "failed" and outcome.reason.startswith("ended each worker that it was given to")
    assert states == [("the task run", "FAILED")]
    assert future.released


def test_a_stage_of_a_cancelled_run_is_interrupted(run: flow.RunOnMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "get_client", lambda sync_client: nullcontext(SimpleNamespace()))
    future = given(run, monkeypatch, WELL)

    def cancelled(raise_on_failure: bool) -> Any:
        run.cancel()
        raise RuntimeError("cancelled")

    future.result = cancelled  # type: ignore[method-assign]
    assert run.bring_up_to_date("train", parent="").reason == "interrupted"
    assert not Path("dvc.lock").exists()
