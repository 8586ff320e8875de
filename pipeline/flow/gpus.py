"""The GPUs of this machine, lent to stages: each that computes on GPUs gets its own, by CUDA_VISIBLE_DEVICES."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.core.config import read_params
from pipeline.core.processes import PROCESSES

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOOK_SECONDS = 1.0  # between two looks at whether a stage that waits for GPUs is still wanted


def here() -> list[str]:
    """The names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them. CUDA is not touched."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return [name for name in visible.split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def asked_for(params: Path = Path("params.yaml")) -> int:
    """How many GPUs a stage with ``compute`` among its settings works on: those of one model, for each process."""
    compute = read_params(params).get("compute") if params.is_file() else None
    if not isinstance(compute, dict) or compute.get("device") != "cuda":
        return 0
    each, processes = compute.get("gpus", 1), os.environ.get(PROCESSES, "1")
    # What is no number, the stage says.
    return (each if isinstance(each, int) else 1) * (int(processes) if processes.isdecimal() else 1)


class Pool:
    """GPUs to be lent. names: as CUDA_VISIBLE_DEVICES has them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._total, self._free = len(names), list(names)
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def lent(self, count: int, ending: Callable[[], bool]) -> Iterator[list[str]]:
        """``count`` GPUs, once so many are free; all where there are fewer, as the stage says itself what it lacks.

        None where the run comes to its end while they are waited for.
        """
        count = min(count, self._total)
        with self._changed:
            while len(self._free) < count and not ending():
                self._changed.wait(LOOK_SECONDS)
            count = count if len(self._free) >= count else 0
            taken, self._free = self._free[:count], self._free[count:]
        try:
            yield taken
        finally:
            with self._changed:
                self._free = sorted([*self._free, *taken])
                self._changed.notify_all()
