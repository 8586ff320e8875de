"""The command line ``selfadapt``.

Everything heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

import contextlib
import importlib.metadata
import importlib.util
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.core.errors import UserError, sentence
from pipeline.core.progress import written_anywhere
from pipeline.serving import commands

PARAMS, PLAN, GRAPH = Path("params.yaml"), Path("plan.yaml"), Path("dvc.yaml")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-adapting language models, from the base model to the report.\n\n"
    "'dvc repro' alone makes everything, one stage after the other. These commands are what else is needed: "
    "a choice of settings (profile), stages side by side (run), the record of all runs (ui), and what to do when "
    "something is missing (doctor). After the run: talk to the adapted model (generate, chat, compare), look into what "
    "was trained (experts), take it away (export) or serve it (serve).",
)
profile = typer.Typer(no_args_is_help=True, help="The settings: params.yaml is one of the profiles.")
app.add_typer(profile, name="profile")
commands.register(app)


SET = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PLACE=VALUE", help="Change a setting, e.g. --set 'seeds=[0,1,2]'; may be repeated."),
]


# ---- run and see -------------------------------------------------------------------------------------------------


@app.command()
def run(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Stages to bring up to date, with all they need (default: everything).")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Stages side by side.")] = 2,
    changes: SET = None,
) -> None:
    """Run what is stale, independent stages side by side, recorded as one Prefect flow.

    Stages are named as in dvc.yaml: 'selfadapt run report', 'selfadapt run train_svf@sums-0'. A stage whose code,
    settings and inputs are unchanged is not run. When one fails, those that need it are skipped, the others still
    run, and the next 'selfadapt run' goes on from there; a training that was killed resumes at its checkpoint.

    Stages share the cores: with --jobs 2 on two cores each has one thread, and as many as compute.threads in
    params.yaml says where there are more.
    """
    from rich.console import Console

    from pipeline.flow import lock as lockfile
    from pipeline.flow import server
    from pipeline.flow.run import Outcome, run_graph

    console = Console(stderr=True, highlight=False)
    if not server.wanted():
        raise UserError("expected SELFADAPT_PREFECT to be on, got 'off'; run 'dvc repro', which needs no Prefect")
    if mended := lockfile.mend():
        console.print(f"note: {mended}")
    _set(changes)
    _say_plan()
    signs = {"done": "[green]✓[/]", "unchanged": "[dim]=[/]", "failed": "[red]✗[/]", "skipped": "[yellow]–[/]"}
    started = time.monotonic()
    running: dict[str, float] = {}
    counts = dict.fromkeys(signs, 0)

    with console.status("reading the graph") as status:

        def tell(news: Outcome | str) -> None:
            if isinstance(news, str):
                running[news] = time.monotonic()
            else:
                running.pop(news.stage, None)
                counts[news.state] += 1
                took = f"  {news.seconds:.1f} s" if news.seconds else ""
                console.print(f"{signs[news.state]} {news.stage}{took}{'  ' + news.reason if news.reason else ''}")
            status.update(f"{sum(counts.values())} ended; running: {', '.join(running) or 'nothing'}")

        run_graph(targets or [], jobs=jobs, tell=tell)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    console.print(f"{summary or 'nothing to do'} in {time.monotonic() - started:.0f} s; 'selfadapt ui' shows the runs")
    if counts["failed"]:
        raise typer.Exit(1)


@app.command()
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


@app.command()
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


# ---- settings and plan -------------------------------------------------------------------------------------------


@app.command()
def plan(
    changes: SET = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Stages side by side, for the time.")] = 2,
) -> None:
    """Bring plan.yaml up to date with params.yaml, and show what a run would make, and what of it is new."""
    from pipeline.core.config import read_params
    from pipeline.evaluation import budget
    from pipeline.flow import forecast
    from pipeline.flow.plan import expand
    from pipeline.flow.stages import resolve

    _set(changes)
    _say_plan()
    params = read_params(PARAMS)
    expanded = expand(params)
    commands, seconds = forecast.locked_commands(Path("dvc.lock")), forecast.recorded_seconds(Path(".selfadapt/runs"))
    stages = forecast.kinds(resolve(PARAMS), GRAPH, commands=commands, seconds=seconds)
    lines = [
        f"{params['profile']}: {len(expanded['cells'])} cells, seeds {', '.join(map(str, params['seeds']))}",
        *budget.listed(budget.tables(params, expanded)),
        "",
        *forecast.counted(stages, budget.work(params, expanded)),
        "",
        forecast.summed(stages, jobs),
    ]
    print("\n".join(lines))


def _set(changes: list[str] | None) -> None:
    """Change settings in params.yaml."""
    from pipeline.core.artifacts import write_text
    from pipeline.flow.profiles import changed

    if changes:
        write_text(PARAMS, changed(_params_text(), changes))


def _params_text() -> str:
    from pipeline.core.config import read_params

    read_params(PARAMS)  # says in one sentence what is wrong with it
    return PARAMS.read_text(encoding="utf-8")


def _say_plan() -> None:
    """Bring plan.yaml up to date; say what that adds and takes away."""
    from pipeline.core.config import read_params
    from pipeline.flow.plan import news, update, walked

    if not GRAPH.is_file():
        raise UserError(f"expected the graph in {GRAPH}, which is not there; run this in the project's folder")
    if not walked(GRAPH):
        return
    before = read_params(PLAN).get("plan", {}) if PLAN.is_file() else {}
    if update(PARAMS, PLAN):
        print(f"{PLAN} is written again: {news(before, read_params(PLAN)['plan'])}")


@profile.command("list")
def list_profiles() -> None:
    """Name the profiles, the active one marked with a star."""
    from pipeline.flow import profiles

    active = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    width = max(map(len, profiles.names()))
    for name in profiles.names():
        print(f"{'*' if profiles.text(name) == active else ' '} {name:{width}}  {profiles.headline(name)}")


@profile.command()
def show(name: Annotated[str, typer.Argument(help="A profile, as 'selfadapt profile list' names it.")]) -> None:
    """Print a profile's settings, as params.yaml would have them."""
    from pipeline.flow import profiles

    print(profiles.text(name), end="")


@profile.command()
def use(
    name: Annotated[str, typer.Argument(help="A profile, as 'selfadapt profile list' names it.")],
    changes: SET = None,
) -> None:
    """Make a profile the active one: params.yaml becomes it, and plan.yaml what it plans."""
    from pipeline.core.artifacts import write_text
    from pipeline.core.reading import yaml_of
    from pipeline.flow import profiles
    from pipeline.flow.plan import expand

    text = profiles.text(name)
    text = profiles.changed(text, changes) if changes else text
    expand(yaml_of(text, PARAMS))  # a profile that cannot be planned leaves everything as it was
    write_text(PARAMS, text)
    _say_plan()
    print(
        f"params.yaml is now the profile {name}{' with changes' if changes else ''}; 'dvc repro' runs what that changes"
    )


@profile.command()
def check(
    name: Annotated[str | None, typer.Argument(help="A profile (default: params.yaml as it is).")] = None,
) -> None:
    """Read every setting, stage and source of a profile, count its cells and parameters, and bound memory and tokens.

    Nothing is run and no weights are downloaded. Each mistake is one line; the exit code says whether there was one.
    """
    from pipeline.flow import profiles
    from pipeline.flow.stages import problems

    with tempfile.TemporaryDirectory() as folder:
        path = PARAMS
        if name:
            path = Path(folder) / "params.yaml"
            path.write_text(profiles.text(name), encoding="utf-8")
        wrong = problems(path)
        if not wrong:
            from pipeline.core.config import read_params
            from pipeline.evaluation.budget import report
            from pipeline.flow.plan import expand

            params = read_params(path)
            lines, wrong = report(params, expand(params))
            print("\n".join(lines))
    for problem in wrong:
        print(f"error: {problem}", file=sys.stderr)
    if wrong:
        raise typer.Exit(1)
    print(f"{name or PARAMS}: every stage resolves and every setting fits")


# ---- doctor ------------------------------------------------------------------------------------------------------


@app.command()
def doctor() -> None:
    """Look at what the pipeline needs; each line that is not ok says what to do."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("libraries", _libraries),
        ("settings", _settings),
        ("DVC", _dvc),
        ("Prefect server", _server),
        ("base model", _base),
        ("sandbox", _sandbox),
    ]
    bad = 0
    for name, look in checks:
        try:
            print(f"ok   {name}: {look()}")
        except UserError as error:
            bad += 1
            print(f"BAD  {name}: {error}")
    if bad:
        raise typer.Exit(1)


def _libraries() -> str:
    from packaging.requirements import Requirement

    remedy = "run 'make repro', or 'pip install --editable .' in an environment of your own"
    try:
        lines = importlib.metadata.requires("selfadapt") or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"expected the package selfadapt to be installed, but it is not; {remedy}") from None
    wrong, right = [], 0
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = "nothing"
        if version != "nothing" and requirement.specifier.contains(version, prereleases=True):
            right += 1
        else:
            wrong.append(f"{requirement.name}{requirement.specifier}, got {version}")
    if wrong:
        raise UserError(f"expected {'; '.join(wrong)}; {remedy}")
    return f"{right} as pinned in pyproject.toml"


def _settings() -> str:
    from pipeline.flow.stages import problems

    if found := problems(PARAMS):
        raise UserError(f"{found[0]} ('selfadapt profile check' lists {len(found)})")
    return f"{PARAMS} fits every stage"


def _dvc() -> str:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return f"{len(repo.index.graph.nodes)} stages"
    except DvcException as error:
        raise UserError(f"{' '.join(str(error).split())}; run this in the project's folder") from None


def _server() -> str:
    from pipeline.flow import server

    if not server.wanted():
        return "not wanted (SELFADAPT_PREFECT=off)"
    if api := server.running():
        return f"up at {api.removesuffix('/api')}"
    if importlib.util.find_spec("prefect") is None:
        raise UserError("expected prefect to be installed, but it is not; run 'pip install --editable .'")
    return "not up; the first run starts one"


def _base() -> str:
    model = Path("artifacts/base/model")
    if not (model / "config.json").is_file() or not list(model.glob("*.safetensors")):
        raise UserError(f"expected the base model in {model}, which is not there; run 'dvc repro' or 'dvc checkout'")
    size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
    return f"{model}, {size / 1e6:.0f} MB"


def _sandbox() -> str:
    from pipeline.scoring.code.sandbox import isolation

    found = isolation()
    if "namespaces" not in found:
        raise UserError(
            f"expected model-written code to run in namespaces of its own, got {found}; allow unprivileged user "
            "namespaces, or run everything in a container without network"
        )
    return found


@contextlib.contextmanager
def _one_sentence() -> Iterator[Any]:
    try:
        yield
    except Exception as error:
        if said := sentence(error):
            sys.exit(f"error: {said}")
        raise


def main() -> None:
    written_anywhere()
    with _one_sentence():
        app(prog_name="selfadapt")


if __name__ == "__main__":
    main()
