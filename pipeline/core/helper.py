"""A further process of a stage (see ``processes``): it does its units of the work, and writes nothing.

python -m pipeline.core.helper train_svf@sums-0 --task sums …
"""

import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core import processes
from pipeline.core.checkpoints import Checkpoints
from pipeline.core.errors import sentence
from pipeline.core.stage import Call, parse

PR_SET_PDEATHSIG = 1


class Read(Checkpoints):
    """What another process saves, and this one reads."""

    def save(self, name: str, tensors: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        pass

    def clear(self) -> None:
        pass


def unwritten(call: Call, folder: Path) -> Call:
    """The same call, with outputs of its own in a folder that goes."""
    elsewhere = {path: folder / f"{place}{path.suffix}" for place, path in enumerate(call.outputs)}

    def turned(value: Any) -> Any:
        if isinstance(value, Checkpoints):
            return Read(value.folder)
        if isinstance(value, list):
            return [turned(part) for part in value]
        return elsewhere.get(value, value) if isinstance(value, Path) else value

    arguments = {key: turned(value) for key, value in call.arguments.items()}
    return replace(call, arguments=arguments, outputs=tuple(elsewhere.values()))


def main() -> None:
    """Run the stage of the command line."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever began this may be killed
    if os.getppid() != int(os.environ[processes.PARENT]):
        sys.exit(1)  # and has been, while libraries were loaded
    name, *argv = sys.argv[1:]
    processes.command[:] = [name, *argv]
    try:
        with tempfile.TemporaryDirectory() as folder:
            call = unwritten(parse(name, argv), Path(folder))
            call.run(**call.arguments)
    except Exception as error:
        if said := sentence(error):
            sys.exit(f"error: {said}")
        raise


if __name__ == "__main__":
    main()
