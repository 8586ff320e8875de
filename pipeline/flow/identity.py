"""Who runs this, where the system does not know: a container may be given a user number that no list of users has."""

import getpass
import os
from pathlib import Path


def complete() -> None:
    """Set HOME and USER where the system knows neither, before libraries ask.

    Prefect cannot be imported without the first, and DVC opens no project without the second.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path(".selfadapt").resolve())
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"user{os.getuid()}"
