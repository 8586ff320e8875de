"""``selfadapt run`` on the profile tiny: each of its processes killed in turn, and the same bytes in the end.

    python -m pytest -m long tests/end_to_end/test_kills.py -s    # half an hour on two cores

SELFADAPT_KILLS says how often, SELFADAPT_KILLS_SEED when and whom, SELFADAPT_KILLS_TARGETS up to which stages of the
graph: by default, to one that needs a stage of nearly every kind.

Not part of `make test`, which kills processes of a smaller graph (tests/unit/flow/test_kills.py).
"""

import os
import subprocess
import sys

import pytest

from pipeline.flow import living as held
from pipeline.flow import server
from tests.clone import ENV, clone, dvc
from tests.kills import ROLES, Kills, ended_stages, living, recorded, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]
KILLS = int(os.environ.get("SELFADAPT_KILLS", "40"))
SEED = int(os.environ.get("SELFADAPT_KILLS_SEED", "0"))
TARGETS = os.environ.get("SELFADAPT_KILLS_TARGETS", "score@groceries-few_shot-0").split()
RUN = [sys.executable, "-m", "selfadapt.cli", "run", *TARGETS]


def test_a_run_whose_processes_are_killed_in_turn_ends_with_the_same_bytes(root, tmp_path, monkeypatch):
    undisturbed = clone(root, tmp_path / "undisturbed")
    dvc(undisturbed, "repro", *TARGETS)
    expected = recorded(undisturbed)
    folder = clone(root, tmp_path / "project")
    environment = ENV | {"SELFADAPT_PREFECT": "on", "SELFADAPT_WARM": "on", "PREFECT_SERVER_API_PORT": "4999"}
    environment.pop("PYTHONDONTWRITEBYTECODE")
    kills = Kills(folder, RUN, environment, ended_stages(undisturbed), KILLS, SEED)
    try:
        kills.disturb()
        assert kills.faults == []
        assert len(kills.told) >= KILLS - len(ROLES)  # the last moments may find everything done
        done = subprocess.run(RUN, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stderr[-3000:]
        assert recorded(folder) == expected
        assert not list((folder / ".selfadapt" / "checkpoints").glob("*/*"))
        monkeypatch.chdir(folder)
        assert until(lambda: not list(held.FOLDER.glob("[!.]*")), seconds=60)  # no run is held, and none is left
        running = server.ask(
            f"{server.running()}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        )
        assert [run["name"] for run in running] == []
    finally:
        kills.end()
    assert not any(living(folder).values())
