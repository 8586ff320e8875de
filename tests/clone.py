"""A copy of the project, as git would clone it, with the profile tiny: for tests that run the whole graph."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.flow import plan, profiles

ENV = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "SELFADAPT_PREFECT": "off",
    "SELFADAPT_WARM": "on",
    "HF_HUB_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",  # tests read from DVC's words which stages it starts, as it says them
}


def clone(root: Path, folder: Path) -> Path:
    """The project of ``root`` in ``folder``, on the profile tiny and without the results of its last run."""
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    for name in tracked.stdout.split():
        made = name == "dvc.lock" or (name.startswith("reports/") and not name.startswith("reports/published/"))
        if (root / name).is_file() and not made:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "params.yaml").write_text(profiles.text("tiny"), encoding="utf-8")
    plan.update(folder / "params.yaml", folder / "plan.yaml")
    return folder


def dvc(folder: Path, *arguments: str) -> str:
    """What DVC says on stdout."""
    done = subprocess.run(["dvc", *arguments], cwd=folder, env=ENV, capture_output=True, text=True, timeout=2000)
    assert done.returncode == 0, f"dvc {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
