"""One stage: run, and recorded as a flow run."""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.errors import UserError, sentence
from pipeline.core.progress import report_to, written_anywhere
from pipeline.flow import lock, server, tags
from pipeline.flow.reporter import Recorder, Watched, outcome


def main(argv: Sequence[str], *, recorded: bool = True) -> int:
    """Run one stage; the exit code. recorded: whether as a flow run, where runs are recorded at all."""
    if not argv or argv[0].startswith("-"):
        print("usage: python -m pipeline.flow <stage>[@<key>] --argument value …", file=sys.stderr)
        return 2
    # A terminated stage unwinds like an interrupted one, so that temporary files and child processes go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs would ignore it
    written_anywhere()
    reporter: Watched | None = None
    try:
        if recorded:
            reporter = Recorder(argv[0]) if server.wanted() else Watched(argv[0])
            report_to(reporter)
        _run_stage(argv[0], argv[1:], reporter if isinstance(reporter, Recorder) else None)
        return 0
    except Exception as error:
        if not (said := sentence(error)):
            raise
        print(f"error: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    finally:
        if reporter:
            reporter.close()


def _run_stage(name: str, argv: Sequence[str], recorder: Recorder | None) -> None:
    tell = recorder.tell if recorder else lambda event, **details: None
    parent = os.environ.get(server.PARENT)
    stage = name.partition("@")[0]
    begin = {"flow": stage, "name": name, "parent": parent, "process": os.getpid()}
    begun = False
    try:
        from pipeline.core.artifacts import read_jsonl
        from pipeline.core.stage import execute, parse  # takes a while, in which the recorder imports prefect

        call = parse(name, argv)
        lock.keep()
        commit, start = tags.commit(), time.perf_counter()
        tell("begin", **begin, parameters=call.plain_arguments, tags=tags.tags(commit, stage))
        begun = True
        metrics = execute(call)
        _note_commit(name, commit)
        if (curve := call.arguments.get("curve")) is not None:
            tell("table", key="curve", rows=[_plain(row) for row in read_jsonl(curve)])
        rows = [{"metric": key, "value": value} for key, value in metrics.items()]
        tell("table", key="metrics", rows=rows)
        seconds = time.perf_counter() - start
        tell("summary", task=call.arguments.get("task"), commit=commit, seconds=seconds, metrics=rows)
        tell("end", state="Completed", message="")
    except BaseException as error:
        if not begun:
            tell("begin", **begin, parameters={"arguments": list(argv)}, tags=tags.tags(None, stage))
        state, message = outcome(error)
        if state == "Failed" and not isinstance(error, UserError):
            tell("log", level=logging.ERROR, text=traceback.format_exc())
        tell("end", state=state, message=message)
        raise


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a curve as a person reads it."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def _note_commit(name: str, commit: str | None) -> None:
    """Add the commit to the run record of a stage that has ended."""
    from pipeline.core.artifacts import read_json, write_json
    from pipeline.core.stage import STATE

    path = STATE / "runs" / f"{name}.json"
    write_json(path, {**read_json(path), "commit": commit})
