"""What runs are found by in Prefect's UI: the profile, the stage, the commit."""

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline.core.config import read_params
from pipeline.core.errors import UserError

PARAMS = Path("params.yaml")


def tags(commit: str | None, stage: str | None = None) -> list[str]:
    """``profile: laptop``, ``stage: train_svf``, ``commit: 1f6a770``; what is not known is left out."""
    try:
        profile = read_params(PARAMS).get("profile")
    except UserError:  # the stage says it
        profile = None
    known = {"profile": profile, "stage": stage, "commit": commit}
    return [f"{name}: {value}" for name, value in known.items() if value]


def commit() -> str | None:
    """The commit of the code and the settings, with a plus if they differ from it; None without git."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        if head.returncode != 0:
            return None
        code = ["pipeline", "stages", "params.yaml", "dvc.yaml"]
        same = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], capture_output=True).returncode == 0
    except OSError:
        return None
    return head.stdout.strip() + ("" if same else "+")


def of_the_flow_alone() -> AbstractContextManager[Any]:
    """Tasks begin without their flow's tags: before one that has any, Prefect waits until its server gives leave."""
    from prefect.context import TagsContext

    return TagsContext(current_tags=set())
