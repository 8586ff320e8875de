"""Processes of a running graph, killed at seeded moments: what is left after each, and what the reruns make."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from pipeline.core.artifacts import digest

# What each role's process has in its command line. Those that are forked from the warm server have the server's, and
# are told apart by where they write: a recorder into its log, a stage into the log of its DVC.
RUN, DVC, FRONT, STAGE, WARM, RECORDER = (
    "the run",
    "DVC",
    "what DVC started",
    "the stage",
    "the warm server",
    "recorder",
)
KEEPER, PREFECT = "the keeper of Prefect's server", "Prefect's server"
ROLES = (RUN, DVC, FRONT, STAGE, WARM, RECORDER, KEEPER, PREFECT)
FATAL = (DVC, FRONT, STAGE)  # whose death fails a stage
OF_A_RUN = (RUN, DVC, FRONT, STAGE)  # what must not outlive the run
LEFT_SECONDS = 5.0
SPREAD = 1.5  # seconds after a stage's end in which a kill may fall
WAIT = 600.0  # for a process of a role to come: a busy machine starts a run in minutes


def role(process: psutil.Process) -> str | None:
    """What a process is to the project that it runs in; None for others."""
    words = process.cmdline()
    text = " ".join(words)
    if "pipeline.flow.keeper" in words:
        return KEEPER
    if ("prefect" in text and "server" in words) or "prefect.server" in text:
        return PREFECT
    if "pipeline.flow.repro" in words:
        return DVC
    if "import record; record()" in text:
        return RECORDER
    if "pipeline.flow.warm" in words:
        parent = process.parent()
        said = f"/proc/{process.pid}/fd"
        if Path(said, "2").readlink().name == "recorder.log":
            return RECORDER
        if Path(said, "1").readlink().parent.name == "logs":
            return STAGE
        return None if parent and "pipeline.flow.warm" in parent.cmdline() else WARM
    if "pipeline.flow" in words:
        return FRONT
    return None


def living(folder: Path) -> dict[str, list[psutil.Process]]:
    """The processes that run in a project's folder, by their roles."""
    found: dict[str, list[psutil.Process]] = {name: [] for name in ROLES}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            here = process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder
            if here and (name := role(process)):
                found[name].append(process)
    return found


def log_of(process: psutil.Process) -> str:
    """Where a process writes: the same for a DVC, what it started, and its stage."""
    with suppress(OSError):
        return str(Path(f"/proc/{process.pid}/fd/1").readlink())
    return ""


def recorded(folder: Path) -> dict[str, str]:
    """The hash of everything that DVC has noted as made; ``reports/runs`` holds how long it took."""
    with suppress(FileNotFoundError, yaml.YAMLError):
        stages = (yaml.load((folder / "dvc.lock").read_text(), yaml.CSafeLoader) or {}).get("stages", {}).values()
        paths = [out["path"] for stage in stages for out in stage.get("outs", [])]
        return {path: digest(folder / path) for path in paths if path != "reports/runs" and (folder / path).exists()}
    return {}


def ended_stages(folder: Path) -> int:
    """How many stages DVC has noted."""
    with suppress(FileNotFoundError):
        return (folder / "dvc.lock").read_text().count("\n    cmd:")
    return 0


@dataclass
class Kills:
    """Runs of a graph that are disturbed. count: of kills. start: begins a run; its words go to ``words``.

    stages: how many the graph has. told: (moment, role, seconds until all that had to go was gone), for the reader.
    """

    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    stages: int
    count: int
    seed: int
    roles: Sequence[str] = ROLES
    told: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder.parent / f"{self.folder.name}.words").open("ab") as words:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )

    def moments(self) -> list[tuple[int, float, str]]:
        """(stages that have ended, seconds after that, whom to kill), each role as often as the others."""
        dice = random.Random(self.seed)
        whom = [self.roles[place % len(self.roles)] for place in range(self.count)]
        dice.shuffle(whom)
        places = sorted(dice.randrange(self.stages) for _ in whom)
        return [(place, dice.uniform(0, SPREAD), name) for place, name in zip(places, whom, strict=True)]

    def disturb(self) -> None:
        """Kill at every moment, and start the run again whenever it has ended. ``faults``: what should not be."""
        run, fatal = self.start(), False
        for place, seconds, name in self.moments():
            while run.poll() is None and ended_stages(self.folder) < place:
                time.sleep(0.05)
            time.sleep(seconds)
            victim = None
            deadline = time.monotonic() + WAIT
            while victim is None and time.monotonic() < deadline:
                if (code := run.poll()) is not None:
                    if code != 0 and not fatal:
                        self.faults.append(f"the run ended with {code}, though no process of a stage had been killed")
                    if code == 0 and ended_stages(self.folder) >= self.stages:
                        return
                    run, fatal = self.start(), False
                victim = self._victim(name, run)
                time.sleep(0.02)
            if victim is None:
                self.faults.append(f"no process of the role '{name}' was seen for {WAIT:.0f} s")
                continue
            fatal = fatal or name in FATAL
            self._kill(name, victim, place + seconds)
        if (code := run.wait()) != 0 and not fatal:
            self.faults.append(f"the run ended with {code}, though no process of a stage had been killed")

    def _victim(self, name: str, run: subprocess.Popen[bytes]) -> psutil.Process | None:
        if name == RUN:
            busy = living(self.folder)
            return psutil.Process(run.pid) if any(busy[other] for other in (DVC, STAGE)) else None
        return next(iter(living(self.folder)[name]), None)

    def _kill(self, name: str, victim: psutil.Process, moment: float) -> None:
        before = living(self.folder)
        below = []
        if name == RUN:
            below = [process for other in OF_A_RUN for process in before[other]]
        elif name == KEEPER:
            below = victim.children(recursive=True)
        elif name in FATAL:
            own = log_of(victim)
            below = [process for other in FATAL for process in before[other] if log_of(process) == own]
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        start = time.monotonic()
        left = below
        while (left := [process for process in left if alive(process)]) and time.monotonic() - start < LEFT_SECONDS:
            time.sleep(0.02)
        took = time.monotonic() - start
        self.told.append(f"{moment:6.1f}  {name:32} {len(below)} to go, {took:.2f} s")
        print(self.told[-1], flush=True)
        if left:
            self.faults.append(f"{[process.cmdline() for process in left]} outlived '{name}' by {LEFT_SECONDS} s")

    def end(self) -> None:
        """Kill whatever runs in the folder."""
        for processes in living(self.folder).values():
            for process in processes:
                with suppress(psutil.Error):
                    process.kill()


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition comes to hold."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds
