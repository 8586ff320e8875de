"""``selfadapt plan`` and ``selfadapt profile``: the settings, and what they plan."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from pipeline.core.errors import UserError

PARAMS, PLAN, GRAPH = Path("params.yaml"), Path("plan.yaml"), Path("dvc.yaml")

profile = typer.Typer(no_args_is_help=True, help="The settings: params.yaml is one of the profiles.")

SET = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PLACE=VALUE", help="Change a setting, e.g. --set 'seeds=[0,1,2]'; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(plan)
    app.add_typer(profile, name="profile")


def change(changes: list[str] | None) -> None:
    """Change settings in params.yaml."""
    from pipeline.core.artifacts import write_text

    if changes:
        in_a_project()
        write_text(PARAMS, after(params_text(), changes))


def after(text: str, changes: list[str]) -> str:
    """Settings with changes made. UserError for a setting that was not there and that nothing reads."""
    from pipeline.core.reading import yaml_of
    from pipeline.flow import profiles
    from pipeline.flow.plan import expand
    from pipeline.flow.stages import problems

    new = profiles.changed(text, changes)
    expand(yaml_of(new, PARAMS))  # what cannot be planned leaves everything as it was
    if added := profiles.added(yaml_of(text, PARAMS), changes):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PARAMS
            path.write_text(new, encoding="utf-8")
            if wrong := problems(path, added):
                raise UserError(wrong[0])
    return new


def params_text() -> str:
    from pipeline.core.config import read_params

    read_params(PARAMS)  # says in one sentence what is wrong with it
    return PARAMS.read_text(encoding="utf-8")


def in_a_project() -> None:
    """Raise UserError where there is no graph."""
    if not GRAPH.is_file():
        raise UserError(f"expected the graph in {GRAPH}, which is not there; run this in the project's folder")


def say_plan() -> None:
    """Bring plan.yaml up to date; say what that adds and takes away."""
    from pipeline.core.config import read_params
    from pipeline.flow.plan import news, update, walked

    in_a_project()
    if not walked(GRAPH):
        return
    before = read_params(PLAN).get("plan", {}) if PLAN.is_file() else {}
    if update(PARAMS, PLAN):
        print(f"{PLAN} is written again: {news(before, read_params(PLAN)['plan'])}")


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

    change(changes)
    say_plan()
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
    if changes:
        text = after(text, changes)
    else:
        expand(yaml_of(text, PARAMS))  # a profile that cannot be planned leaves everything as it was
    write_text(PARAMS, text)
    say_plan()
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
