"""``selfadapt graph``: what is made of what."""

import difflib
from typing import Annotated

import typer

from pipeline.core.errors import UserError
from selfadapt.settings import PARAMS, in_a_project, say_plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(graph)


def graph(
    stage: Annotated[str | None, typer.Argument(help="A stage: only what it reads of, and what reads of it.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a flow chart for Markdown.")] = False,
) -> None:
    """Show the graph by the entries of dvc.yaml, with how many stages each has; 'dvc dag' draws every single one.

    An arrow leads to the entries that one reads of, without those that come before them anyway.
    """
    from pipeline.flow import groups
    from pipeline.flow.stages import resolve

    in_a_project()
    say_plan()
    stages = resolve(PARAMS)
    if stage is None:
        found = groups.entries(stages)
        print(groups.mermaid(found) if mermaid else "\n".join(groups.listed(found)))
        return
    needs = groups.edges(stages)
    if stage not in needs:
        close = difflib.get_close_matches(stage, needs, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "'selfadapt run --dry-run' names stages"
        raise UserError(f"expected a stage, got '{stage}'; {hint}")
    print("\n".join(groups.around(stage, needs)))
