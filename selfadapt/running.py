"""``selfadapt run``, ``train``, ``publish`` and ``ui``: the graph brought up to date, seen, and kept."""

import contextlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.core.errors import UserError
from selfadapt.settings import PARAMS, PLAN, SET, change, in_a_project, params_text, say_plan


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (run, train, publish, ui):
        app.command()(command)


Targets = Annotated[
    list[str] | None, typer.Argument(help="Stages to bring up to date, with all they need (default: everything).")
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Stages side by side.")]
RECORDS, SCORES = Path(".selfadapt/runs"), Path("artifacts/scores")


def run(
    targets: Targets = None,
    jobs: Jobs = 2,
    changes: SET = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, and about how long.")] = False,
    on: Annotated[str, typer.Option(help="Machines: dask, tcp://HOST:PORT or slurm:FILE (docs/machines.md).")] = "",
) -> None:
    """Run what is stale, independent stages side by side, recorded as one Prefect flow.

    Stages are named as in dvc.yaml: 'selfadapt run report', 'selfadapt run train_svf@sums-0'. A stage whose code,
    settings and inputs are unchanged is not run. When one fails, those that need it are skipped, the others still
    run, and the next 'selfadapt run' goes on from there; a training that was killed resumes at its checkpoint.

    Stages share the cores: with --jobs 2 on two cores each has one thread, and as many as compute.threads in
    params.yaml says where there are more.

    With --on, stages run on Dask's workers: --jobs of them on this machine, those at the address of a scheduler, or
    jobs of SLURM as a file describes them.
    """
    if dry and changes:
        raise UserError(
            "expected --dry-run alone, got --set with it, which writes params.yaml; run 'selfadapt plan --set'"
        )
    if not dry:
        change(changes)
    say_plan()
    if dry:
        _say_what_would_run(targets or [], jobs)
        return
    bring_up_to_date(targets or [], jobs, on)
    if not targets:
        from pipeline.core.config import read_params

        first = next(iter(read_params(PARAMS).get("tables", {})), None)
        _say_table(first)
        print("the report: reports/index.html")


def bring_up_to_date(targets: Sequence[str], jobs: int, on: str = "") -> None:
    """Run a part of the graph, with a line for each stage that ends; exits with 1 if one fails. on: the machines."""
    from rich.console import Console

    from pipeline.flow import lock as lockfile
    from pipeline.flow import server
    from pipeline.flow.run import run_graph
    from selfadapt.watching import View

    console = Console(stderr=True, highlight=False)
    if not server.wanted():
        raise UserError("expected SELFADAPT_PREFECT to be on, got 'off'; run 'dvc repro', which needs no Prefect")
    if mended := lockfile.mend():
        console.print(f"note: {mended}")
    started = time.monotonic()
    view = View(console, RECORDS, jobs)
    with view.shown():
        run_graph(targets, jobs=jobs, tell=view.tell, on=on)
    counts = view.counts
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    console.print(f"{summary or 'nothing to do'} in {time.monotonic() - started:.0f} s; 'selfadapt ui' shows the runs")
    if counts["failed"]:
        raise typer.Exit(1)


def _say_what_would_run(targets: Sequence[str], jobs: int) -> None:
    from pipeline.flow import forecast
    from pipeline.flow.run import read_graph

    graph = read_graph(targets)
    waiting = forecast.Waiting.of(graph.needs, graph.changed, forecast.recorded_seconds(RECORDS), jobs)
    for stage in waiting.stale:
        print(stage if stage in graph.changed else f"{stage}  (if what it reads becomes another)")
    print(f"{len(waiting.stale)} of {len(graph.needs)} stages would run{waiting.left({})}")


def _say_table(name: str | None) -> None:
    """Print a table of the plan, as far as it is scored."""
    from pipeline.core.config import read_params, read_plan, settings
    from pipeline.evaluation.intervals import Resampling
    from pipeline.reporting import short

    params = read_params(PARAMS)
    cells = {key: cell for key, cell in read_plan(PLAN)["cells"].items() if name in cell["tables"]}
    drawn = {key: settings(params, f"report.{key}") for key in Resampling.model_fields}
    if lines := short.lines(cells, SCORES, Resampling.parse(drawn, "report")):
        print("\n".join(["", f"{name}, seeds {_seeds(cells)}:", *lines, ""]))


def _seeds(cells: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(map(str, sorted({cell["seed"] for cell in cells.values()})))


def train(
    file: Annotated[Path, typer.Argument(help="Rows of yours: a JSON object a line.")],
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="A row of params.yaml: svf, lora, …; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the task is called (default: as the file).")] = None,
    prompt: Annotated[str, typer.Option(help="The column that is asked, or a text: '{context} {question}'.")] = "",
    answer: Annotated[str, typer.Option(help="The column with the right answer.")] = "",
    scorer: Annotated[str, typer.Option(help="numbers, choices, latex, code, exact or pattern.")] = "",
    options: Annotated[str, typer.Option(help="The column with the choices.")] = "",
    pattern: Annotated[str, typer.Option(help="What finds the answer: a regular expression.")] = "",
    system: Annotated[str, typer.Option(help="What stands before every question.")] = "",
    worked: Annotated[int, typer.Option(min=0, help="Solved rows in the chat before each question.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Of the training (default: all seeds of params.yaml).")] = None,
    jobs: Jobs = 2,
) -> None:
    """Train on rows of your own, score against the base model, and print the table.

    The rows become a task and a table of params.yaml, where all of it can be changed afterwards; DVC watches the file.
    What was trained is 'expert:NAME' (or 'lora:NAME') to generate, compare, serve and export.
    """
    from pipeline.core.artifacts import write_text
    from pipeline.core.reading import yaml_of
    from pipeline.flow import own
    from pipeline.flow.plan import expand
    from pipeline.tasks import own as own_task

    in_a_project()
    methods = method or ["svf"]
    given = {"prompt": prompt, "answer": answer, "scorer": scorer, "options": options, "pattern": pattern}
    rows = own.read(file, name=own.named(file, name), given={**given, "system": system, "worked": worked})
    own_task.examples(rows.name, rows.values, own_task.Rows.parse(rows.rows, f"tasks.{rows.name}.data.rows"))
    text = own.added(params_text(), rows, methods=methods, seed=seed)
    plan = expand(yaml_of(text, PARAMS))  # what cannot be planned leaves everything as it was
    print(rows.said, flush=True)
    write_text(PARAMS, text)
    say_plan()
    cells = [key for key, cell in plan["cells"].items() if rows.name in cell["tables"]]
    bring_up_to_date([f"heuristics@{rows.name}", *(f"score@{cell}" for cell in cells)], jobs)
    _say_table(rows.name)
    strategy = {"svf": "expert", "lora": "lora"}.get(methods[0])
    if strategy:
        called = f"{strategy}:{rows.name}"
        print(f"next: selfadapt generate 'a question' -s {called}; selfadapt export {called} out")


def publish(
    cells: Annotated[
        list[str] | None, typer.Argument(help="Cells of params.yaml (default: all that are scored).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The folder's name (default: the base model's).")] = None,
) -> None:
    """Keep a finished run's answers, scores, curves and small trained vectors in reports/published, to be committed.

    With no cells named, its classification heads and experiments on skills, too.

    The report of any later run shows it: 'dvc repro report'.
    """
    from pipeline.reporting import publish as publishing

    folder = publishing.publish(cells or [], name)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}, {size / 1e6:.1f} MB; 'dvc repro report' shows it")


def ui() -> None:
    """Keep the Prefect server up, and say where to see the runs, until Ctrl-C."""
    from pipeline.flow import server

    print("starting the Prefect server …", flush=True)
    api = server.ensure()
    if api is None:
        raise UserError(f"expected a Prefect server to start, but it did not; {server.FOLDER}/server.log says why")
    print(f"every run is shown at {api.removesuffix('/api')} (Ctrl-C ends this)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            server.touch()
            time.sleep(20)
    print("the server ends by itself a few minutes after the last run")
