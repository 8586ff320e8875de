"""DVC's command line, for one stage of many: it writes that stage's entry in ``dvc.lock``, not the whole file.

To note one stage DVC reads its record of all stages in a way that keeps comments, and writes it anew. That takes 5 s of
CPU with 176 stages, more than most of them take for their work. Here the entry's lines are put in the place of the old
ones: the file is, to the byte, the one that DVC would have written. A record that has another form is left to DVC.

    python -m pipeline.flow.repro repro --single-item STAGE
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.artifacts import write_text

HEAD = "schema: '2.0'\nstages:\n"  # what the record begins with, as DVC writes it
# Another section, or a reference: its name is one for the whole file.
OTHER = re.compile(r"^\S|[ ][&*]id\d", re.MULTILINE)
NEXT = re.compile(r"^ {0,2}\S", re.MULTILINE)  # the line on which another entry begins


def run_dvc(*lines: Sequence[str]) -> int:
    """Run DVC with the words of each line, one after the other, until one fails; the last one's exit code."""
    from dvc.cli import main as run
    from dvc.dvcfile import Lockfile

    whole = Lockfile.dump_stages

    def dump_stages(self: Any, stages: Any, **kwargs: Any) -> None:
        if not _dump(self, stages, **kwargs):
            whole(self, stages, **kwargs)

    Lockfile.dump_stages = dump_stages
    return next((code for line in lines if (code := int(run(list(line))))), 0)


def _dump(lockfile: Any, stages: Any, **kwargs: Any) -> bool:
    """Note ``stages`` in DVC's record; False if that is not of the form in which it writes it."""
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import dumps_yaml

    path = Path(lockfile.path)
    before = text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for stage in stages:
        text = replaced(text, dumps_yaml({"stages": to_lockfile(stage, **kwargs)}).removeprefix("stages:\n"))
        if not text:
            return False
    if text != before:
        write_text(path, text)
        lockfile.repo.scm_context.track_file(lockfile.relpath)
    return True


def replaced(record: str, entry: str) -> str:
    """``record`` with the lines ``entry`` for their stage, where the old ones were; empty if it has another form.

    entry: the first line names the stage, indented by two spaces, e.g. ``  score@sums-base:``.
    """
    if not record.startswith(HEAD) or not record.endswith("\n") or OTHER.search(record + entry, len(HEAD)):
        return ""
    name = entry[: entry.index("\n") + 1]
    begin = record.find(f"\n{name}") + 1
    if not begin:
        return record + entry
    following = NEXT.search(record, begin + len(name))
    return record[:begin] + entry + record[following.start() if following else len(record) :]


def entry_of(record: str, stage: str) -> str:
    """The lines of a stage in ``record``, as ``replaced`` takes them; empty if there are none."""
    name = f"  {stage}:\n"
    begin = record.find(f"\n{name}") + 1
    if not begin:
        return ""
    following = NEXT.search(record, begin + len(name))
    return record[begin : following.start() if following else len(record)]


if __name__ == "__main__":
    sys.exit(run_dvc(sys.argv[1:]))
