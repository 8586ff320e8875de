"""A toy graph whose processes are killed while it runs: nothing of a killed run is left, and the bytes are the same.

SELFADAPT_KILLS says how often; each of the eight kinds of processes dies in its turn. On the real graph:
tests/end_to_end/test_kills.py.
"""

import os
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.flow import living as held
from pipeline.flow import server
from tests.kills import RUN, Kills, living, recorded, until
from tests.unit.flow import toy
from tests.unit.flow.toy import Project

KILLS = int(os.environ.get("SELFADAPT_KILLS", "3"))
SEED = int(os.environ.get("SELFADAPT_KILLS_SEED", "0"))
CHAINS, LENGTH = (3, 2) if KILLS < 10 else (12, 3)
TOYS = {
    f"c{chain}{place}": {"mode": "good", "source": f"c{chain}{place - 1}" if place else "zero"}
    for chain in range(CHAINS)
    for place in range(LENGTH)
}


@pytest.fixture
def project(tmp_path: Path, root: Path) -> Project:
    """Chains of stages, each of which adds one to what it reads, in a second."""
    made = Project(tmp_path / "toy", root, "on")
    made.environment["SELFADAPT_WARM"] = "on"
    (made.folder / "params.yaml").write_text(yaml.safe_dump({"toy": {"seconds": 1.0}, "toys": TOYS}))
    return made


@pytest.mark.long
@pytest.mark.timeout(600 + 120 * KILLS)
def test_a_graph_whose_processes_are_killed_ends_with_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-u", "-c", toy.RUN]
    kills = Kills(project.folder, command, project.environment, len(TOYS), KILLS, SEED)
    monkeypatch.chdir(project.folder)
    began = time.monotonic()
    try:
        kills.disturb()
        print(f"{len(kills.told)} kills in {time.monotonic() - began:.0f} s")
        assert kills.faults == []
        assert len(kills.told) + 2 >= KILLS  # the last moments may find everything done
        said, errors = project.start_graph().communicate(timeout=600)
        outcomes = [line for line in said.splitlines() if line.startswith("Outcome")]
        assert len(outcomes) == len(TOYS), errors
        assert all("state='done'" in outcome or "state='unchanged'" in outcome for outcome in outcomes)
        assert {name: (project.folder / name).read_text() for name in TOYS} == {
            name: f"{int(name[-1]) + 1}\n" for name in TOYS
        }
        assert recorded(project.folder).keys() == TOYS.keys()
        assert until(lambda: not list(held.FOLDER.glob("[!.]*")), seconds=120)  # every run has ended, or been buried
        unended = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}}
        assert [run["name"] for run in server.ask(f"{server.running()}/flow_runs/filter", unended)] == []
        crashed = {"flow_runs": {"state": {"type": {"any_": ["CRASHED"]}}, "name": {"any_": ["everything"]}}}
        killed = sum(f" {RUN} " in told for told in kills.told)
        assert len(server.ask(f"{server.running()}/flow_runs/filter", crashed)) >= killed
    finally:
        kills.end()
    assert not any(living(project.folder).values())
