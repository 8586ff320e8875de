"""The numbers of a training's steps, for tools that draw them while it runs: DVCLive and TensorBoard, where asked for.

DVCLive logs what runs under ``dvc exp run``, if it is installed, into ``dvclive/<stage>/<key>``: so the experiment has
its curves in VS Code, in DVC Studio and in ``dvc plots``. TensorBoard's files are written with
SELFADAPT_TENSORBOARD=on, into ``.selfadapt/tensorboard``. Both belong to the optional extra ``log``.
"""

import contextlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.errors import UserError

DVCLIVE = Path("dvclive")
TENSORBOARD = Path(".selfadapt/tensorboard")
WANTED = "SELFADAPT_TENSORBOARD"
EXPERIMENT = "DVC_EXP_BASELINE_REV"  # DVC sets it for the stages of an experiment


class Logger(Protocol):
    """A tool that draws numbers."""

    def log(self, loop: str, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def asked_for(stage: str) -> list[Logger]:
    """The tools that are to draw a stage's trainings. UserError where one is asked for that is not installed."""
    found: list[Logger] = []
    if os.environ.get(WANTED, "off") == "on":
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                f"expected the package tensorboard with {WANTED}=on, got an environment without it; run "
                "'pip install \"selfadapt[log]\"'"
            )
        found.append(_TensorBoard(_folder(TENSORBOARD, stage)))
    if EXPERIMENT in os.environ and importlib.util.find_spec("dvclive") is not None:
        found.append(_DVCLive(_folder(DVCLIVE, stage)))
    return found


def _folder(root: Path, stage: str) -> Path:
    return root.joinpath(*stage.split("@"))


class _DVCLive:
    """One loop after the other in one folder, as a stage has one curve. The tool is made when there is a number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._live: Any = None

    def log(self, loop: str, step: int, values: Mapping[str, float]) -> None:
        from dvclive import Live

        if self._live is None:
            yaml = self._folder / "dvc.yaml"
            self._live = Live(str(self._folder), save_dvc_exp=False, dvcyaml=str(yaml))
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(f"{loop}/{name}", value)
        self._live.sync()

    def close(self) -> None:
        if self._live is not None:
            self._live.end()


class _TensorBoard:
    """A scalar for each number of each loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, loop: str, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            for old in self._folder.glob("events.out.tfevents.*"):  # of an earlier run of the stage
                with contextlib.suppress(OSError):
                    old.unlink()
            self._writer = SummaryWriter(str(self._folder))
        for name, value in values.items():
            self._writer.add_scalar(f"{loop}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
