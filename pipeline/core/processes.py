"""Several processes that work on one stage together, on one machine: each does some units of the work.

What is divided is divided into units first, as many as the settings say (``compute.units``), whoever does them; a unit
draws by a generator of its own, and what comes of the units is joined in their order. So one process and four give the
same bytes. (``all_reduce`` adds in an order of its own, and does not.)

How many processes there are is no setting: ``SELFADAPT_PROCESSES`` says it. The stage that is run begins the others
where the work is first divided (``joined``): each runs the same stage, with the same arguments, and writes nothing.
They meet by torch.distributed (gloo: what is sent is small, and lies on the CPU). The process with rank 0 alone writes.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PROCESSES = "SELFADAPT_PROCESSES"
# What a further process is told.
RANK, SIZE, STORE, PARENT = "SELFADAPT_RANK", "SELFADAPT_SIZE", "SELFADAPT_STORE", "SELFADAPT_PARENT"
HELPER = "pipeline.core.helper"
LOOK_SECONDS = 0.05  # between two looks at who is there
WAIT = timedelta(hours=2)  # for the slowest unit

# The command line of the stage that this process runs: what a further process runs, too.
command: list[str] = []


@dataclass(frozen=True)
class Group:
    """rank: of this process, from 0. size: how many there are."""

    rank: int = 0
    size: int = 1

    def own(self, units: int) -> range:
        """The units of this process."""
        return range(self.rank, units, self.size)

    def gathered(self, units: int, mine: Mapping[int, Any]) -> list[Any]:
        """What each unit came to, in their order. mine: of this process's own units, JSON values."""
        if self.size == 1:
            return [mine[unit] for unit in range(units)]
        import torch

        sent = torch.frombuffer(bytearray(json.dumps(list(mine.items())).encode()), dtype=torch.uint8)
        lengths = [int(part) for part in self._all(torch.tensor([len(sent)]))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(sent)] = sent
        texts = [part[:length].numpy().tobytes() for part, length in zip(self._all(padded), lengths, strict=True)]
        found = {unit: value for text in texts for unit, value in json.loads(text)}
        return [found[unit] for unit in range(units)]

    def in_order(self, units: int, one: Callable[[int], "Tensor"], nothing: "Tensor") -> Iterator["Tensor"]:
        """A vector of each unit, in their order. one: makes that of an own unit. nothing: of the same form."""
        for start in range(0, units, self.size):
            unit = start + self.rank
            vector = one(unit) if unit < units else nothing
            parts = [vector] if self.size == 1 else self._all(vector)
            yield from parts[: units - start]

    def meet(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            import torch

            self._all(torch.zeros(1))

    def _all(self, vector: "Tensor") -> list["Tensor"]:
        """Everybody's vector, in the order of the ranks."""
        import torch
        from torch import distributed

        with _together(self.size):
            parts = [torch.empty_like(vector) for _ in range(self.size)]
            distributed.all_gather(parts, vector.contiguous())
            return parts


ALONE = Group()
_joined: Group | None = None
_helpers: list[tuple[subprocess.Popen[bytes], Path]] = []  # and what each of them writes


def current() -> Group:
    """The group that this process has joined; alone, before it has joined any."""
    return _joined or ALONE


def joined(units: int) -> Group:
    """The group that divides so many units; the first call begins the other processes, and waits for them."""
    global _joined
    size = min(units, _wanted())
    if _joined is None and size > 1 and command:
        _joined = _join(size)
    return current()


def _wanted() -> int:
    text = os.environ.get(SIZE) or os.environ.get(PROCESSES, "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"expected {PROCESSES} to be a number of processes from 1 on, got '{text}'; correct or unset it"
        )
    return int(text)


def _join(size: int) -> Group:
    from torch import distributed

    rank, store = int(os.environ.get(RANK, "0")), os.environ.get(STORE)
    if store is None:
        folder = Path(tempfile.mkdtemp(prefix="selfadapt-"))
        atexit.register(_leave, folder)
        store = str(folder / "store")
        for other in range(1, size):
            log = folder / f"{other}.log"
            _helpers.append((_begun(other, size, store, log), log))
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # they are on one machine, whose name nobody need know
    met = distributed.FileStore(store, size)
    met.set(f"here {rank}", "")
    while not met.check([f"here {other}" for other in range(size)]):  # to load a model takes each of them seconds
        if said := _last_words():
            raise UserError(
                f"expected {size} processes to work on this stage together, but one did not begin{said}; run again"
            )
        time.sleep(LOOK_SECONDS)
    with _together(size):
        distributed.init_process_group("gloo", store=met, rank=rank, world_size=size, timeout=WAIT)
    return Group(rank, size)


def _begun(rank: int, size: int, store: str, log: Path) -> subprocess.Popen[bytes]:
    """A further process of this stage; on a machine with several GPUs, on one of its own."""
    environment = {**os.environ, RANK: str(rank), SIZE: str(size), STORE: store, PARENT: str(os.getpid())}
    devices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    environment["CUDA_VISIBLE_DEVICES"] = devices[rank % len(devices)] if devices else str(rank)
    with log.open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", HELPER, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )


def _leave(folder: Path) -> None:
    """End the other processes, whatever they are at."""
    for helper, _ in _helpers:
        helper.kill()
        helper.wait()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _together(size: int) -> Iterator[None]:
    """Turns what torch says of a process that has gone into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"expected {size} processes to work on this stage together, but one has gone{_last_words()}; run "
            "again: a training goes on at its last checkpoint"
        ) from error


def _last_words() -> str:
    """How the first of the further processes that has ended did so; nothing while all of them run."""
    for helper, log in _helpers:
        if (code := helper.poll()) is not None:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return f" (exit code {code}{': ' + said[-1] if said else ''})"
    return ""


def parts(places: Sequence[Any], units: int) -> list[Sequence[Any]]:
    """A sequence in so many parts, one after the other, as even as can be; fewer where there is less than one each."""
    count = max(1, min(units, len(places)))
    ends = [len(places) * (part + 1) // count for part in range(count)]
    return [places[start:end] for start, end in zip([0, *ends], ends, strict=False)]
