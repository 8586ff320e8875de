"""``dvc.lock``, whole again after a kill.

DVC writes its record of the finished stages in place. Killed in the middle of that, it leaves half a file, and refuses
to do anything from then on. So every stage, as it starts, keeps a copy of the file as DVC left it; and before DVC is
started (``make repro``, ``selfadapt run``), a file that is no record is replaced by that copy. What the copy does not
know of is run again.

    python -m pipeline.flow.lock
"""

import shutil
import sys
from pathlib import Path

from pipeline.core.artifacts import atomic

LOCK, COPY = Path("dvc.lock"), Path(".selfadapt/dvc.lock")


def keep() -> None:
    """Copy the record, if it has changed since the last copy."""
    if not LOCK.is_file() or (COPY.is_file() and COPY.stat().st_mtime_ns == LOCK.stat().st_mtime_ns):
        return
    COPY.parent.mkdir(exist_ok=True)
    with atomic(COPY) as path:
        shutil.copy2(LOCK, path)  # with its time: that is what tells a changed one


def mend() -> str | None:
    """Put the copy in the place of a record that DVC can't read; what was done, in a sentence, or None."""
    if not LOCK.is_file() or whole(LOCK):
        return None
    if COPY.is_file() and whole(COPY):
        with atomic(LOCK) as path:
            shutil.copy2(COPY, path)
        return "dvc.lock was cut off, by a kill it seems: it is again what it was one stage before"
    LOCK.unlink()
    return "dvc.lock was cut off, by a kill it seems, and there is no copy: removed; stages are checked anew"


def whole(path: Path) -> bool:
    """Whether DVC can read a record."""
    import yaml
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    except (Invalid, yaml.YAMLError, UnicodeDecodeError):
        return False
    return True


if __name__ == "__main__":
    if said := mend():
        print(f"note: {said}", file=sys.stderr)
