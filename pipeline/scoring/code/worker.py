"""The script that a sandbox's worker process starts with: ``python worker.py FOLDER``. Never imported.

It makes the modules beside it importable by their names, without the rest of the project, and hands over to
``keeper``. FOLDER is empty, and the worker's own.
"""

import importlib
import sys
import types
from pathlib import Path

PACKAGES = ("pipeline", "pipeline.scoring", "pipeline.scoring.code")


def main() -> None:
    """Import the worker's modules, and only these, and run."""
    for name in PACKAGES:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    sys.modules[PACKAGES[-1]].__path__ = [str(Path(__file__).parent)]
    keeper = importlib.import_module("pipeline.scoring.code.keeper")
    for name in PACKAGES:  # programs see the standard library alone
        del sys.modules[name]
    keeper.serve(sys.argv[1])


if __name__ == "__main__":
    main()
