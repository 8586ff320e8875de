"""One stage in a worker's folder, in one process: what it needs is fetched, DVC runs it, what it made is pushed.

    python -m pipeline.flow.machines.away [--shared] STAGE NEEDED …

--shared: the cache is the coordinator's own, so that nothing is pulled or pushed.
"""

import sys
from collections.abc import Sequence

from pipeline.flow.repro import run_dvc

WAIT = "--wait-for-lock"


def main(argv: Sequence[str]) -> int:
    """Bring ``argv`` = [--shared] STAGE NEEDED … up to date; DVC's exit code."""
    shared = argv[0] == "--shared"
    stage, *needed = argv[1:] if shared else argv
    # The folder is the worker's own, and what an ended stage may have left there unfinished is written over.
    fetch = [WAIT, "checkout" if shared else "pull", "--force", *needed]
    run = [WAIT, "repro", "--single-item", "--no-run-cache", stage]
    push = [WAIT, "push", stage]
    return run_dvc(*([fetch] if needed else []), run, *([] if shared else [push]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
