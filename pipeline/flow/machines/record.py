"""DVC's record of stages that other machines have run, and what it knows of that is not here."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import write_text
from pipeline.core.errors import UserError
from pipeline.flow import lock, repro

RUNS = Path(".selfadapt/runs")


def merge(stage: str, entry: str) -> None:
    """Put the lines of a stage into ``dvc.lock``, as DVC would have on this machine. Waits for DVC's processes."""
    with lock.held():
        before = lock.RECORD.read_text(encoding="utf-8") if lock.RECORD.is_file() else repro.HEAD
        after = repro.replaced(before, entry) if entry else ""
        if not after:
            raise UserError(
                f"expected the record of {stage} as DVC writes it, in dvc.lock and from the worker, got another form; "
                f"run 'dvc repro {stage}'"
            )
        write_text(lock.RECORD, after)
    lock.keep()


def restore(repo: Any, stages: Iterable[Any]) -> None:
    """Bring back what DVC's record says that stages have made, and the folder lacks: from the cache, or the remote.

    What is nowhere is left out: its stage will be run. repo: DVC's, open. stages: DVC's.
    """
    from dvc.exceptions import DvcException

    missing = [
        stage.addressing
        for stage in stages
        if any(out.use_cache and out.hash_info and not out.exists for out in stage.outs)
    ]
    if missing:
        with contextlib.suppress(DvcException):
            if has_remote(repo):
                repo.fetch(targets=missing)
        with contextlib.suppress(DvcException):
            repo.checkout(targets=missing, allow_missing=True, force=True)


def has_remote(repo: Any) -> bool:
    """Whether DVC has a remote to push to and to pull from where none is named."""
    return bool(repo.config["core"].get("remote"))
