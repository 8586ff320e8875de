"""One stage: run, and recorded as a flow run."""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence

from pipeline.core.errors import UserError, sentence
from pipeline.core.progress import report_to, written_anywhere
from pipeline.flow import lock, server
from pipeline.flow.reporter import Recorder, outcome


def main(argv: Sequence[str], *, recorded: bool = True) -> int:
    """Run one stage; the exit code. recorded: whether as a flow run, where runs are recorded at all."""
    if not argv or argv[0].startswith("-"):
        print("usage: python -m pipeline.flow <stage>[@<key>] --argument value …", file=sys.stderr)
        return 2
    # A terminated stage unwinds like an interrupted one, so that temporary files and child processes go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs would ignore it
    written_anywhere()
    recorder = Recorder() if recorded and server.wanted() else None
    if recorder:
        report_to(recorder)
    try:
        _run_stage(argv[0], argv[1:], recorder)
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
        if recorder:
            recorder.close()


def _run_stage(name: str, argv: Sequence[str], recorder: Recorder | None) -> None:
    tell = recorder.tell if recorder else lambda event, **details: None
    parent = os.environ.get(server.PARENT)
    begin = {"flow": name.partition("@")[0], "name": name, "parent": parent, "process": os.getpid()}
    begun = False
    try:
        from pipeline.core.stage import execute, parse  # takes a while, in which the recorder imports prefect

        call = parse(name, argv)
        lock.keep()
        code, start = commit(), time.perf_counter()
        tell("begin", **begin, parameters=call.plain_arguments)
        begun = True
        metrics = execute(call)
        _note_commit(name, code)
        rows = [{"metric": key, "value": value} for key, value in metrics.items()]
        tell("table", key="metrics", rows=rows)
        seconds = time.perf_counter() - start
        tell("summary", task=call.arguments.get("task"), commit=code, seconds=seconds, metrics=rows)
        tell("end", state="Completed", message="")
    except BaseException as error:
        if not begun:
            tell("begin", **begin, parameters={"arguments": list(argv)})
        state, message = outcome(error)
        if state == "Failed" and not isinstance(error, UserError):
            tell("log", level=logging.ERROR, text=traceback.format_exc())
        tell("end", state=state, message=message)
        raise


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


def _note_commit(name: str, commit: str | None) -> None:
    """Add the commit to the run record of a stage that has ended."""
    from pipeline.core.artifacts import read_json, write_json
    from pipeline.core.stage import STATE

    path = STATE / "runs" / f"{name}.json"
    write_json(path, {**read_json(path), "commit": commit})
