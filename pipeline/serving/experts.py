"""``selfadapt experts``: what was trained and adapted, what it scored, and what it changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="What was trained: list it, look into it.")
WIDTH = 115  # columns of text that the list needs: in a pipe there are 80, which leave nothing for a sentence
Folder = Annotated[Path, typer.Option("--project", "-C", help="The project's folder.", metavar="FOLDER")]


@app.command("list")
def list_experts(project: Folder = Path()) -> None:
    """Name the experts, adapters and mixtures that the run has made, how each came about, and what it scored."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline.serving.measured import measured
    from pipeline.serving.names import Names

    opened = Names(project)
    heads = ("parameters", "accuracy, %", "base")
    parameters, accuracy, base = (Column(head, justify="right", no_wrap=True) for head in heads)
    table = Table(Column("name", no_wrap=True), "what it is", parameters, "task", accuracy, base, box=box.SIMPLE_HEAD)
    for name, path in opened.artifacts.items():
        if not path.is_file():
            table.add_row(name, "not made yet")
            continue
        provenance = opened.provenance(path)
        head = [name, origin(provenance), f"{provenance['parameters']:,}".replace(",", " ")]
        scores = measured(opened, path)
        if not scores:
            table.add_row(*head, "not scored")
        for score in scores:
            interval = f"{100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
            table.add_row(*head, score.task, interval, "" if score.base is None else f"{100 * score.base:.1f}")
            head = ["", "", ""]
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    print("in brackets: 95 % intervals; 'selfadapt experts show NAME' says what one of them changed")


def origin(provenance: Mapping[str, Any]) -> str:
    """How an artifact came about: what it was trained on, which expert was selected, or what was mixed."""
    task = str(provenance.get("task"))
    alpha: Sequence[Sequence[float]] = provenance.get("alpha") or []
    if not alpha:
        return f"trained on {', '.join(provenance.get('tasks') or [task])}"
    if provenance["method"] == "select":
        best = max(range(len(alpha[0])), key=alpha[0].__getitem__)
        return f"is {provenance['experts'][best]}, the best on prompts of {task}"
    if len(alpha) > 1:
        return f"mixed for {task}, layer by layer"
    shares = ", ".join(f"{name} {share:.2f}" for name, share in zip(provenance["experts"], alpha[0], strict=True))
    return f"mixed for {task}: {shares}"


@app.command("show")
def show_expert(
    name: Annotated[str, typer.Argument(help="A name, as 'selfadapt experts list' gives it.")],
    top: Annotated[int, typer.Option(min=1, help="How many components to name.")] = 3,
    every: Annotated[bool, typer.Option("--all", help="Every matrix, instead of a summary.")] = False,
    project: Folder = Path(),
) -> None:
    """What an expert changed, by layer and kind of matrix, and where it changed the most.

    'change' is ‖W' − W‖ / ‖W‖; for edits of hidden states, how far the edit is from doing nothing. Component σ0 is
    the largest singular value's.
    """
    from rich.console import Console

    from pipeline.serving.describe import changes
    from pipeline.serving.project import Project

    opened = Project(project)
    full = opened.full(name)
    adapter, provenance = opened.read(opened.file_of(full))
    rows = changes(adapter, opened.factors, top)
    console = Console()
    print(f"{full}: {provenance['method']}, {provenance['parameters']} parameters; {origin(provenance)}")
    if "alpha" in provenance:
        print(f"how its experts are mixed ({provenance['configuration']}):")
        console.print(_mixture(provenance))
    if every:
        console.print(_matrices(rows))
        return
    print("change, by layer and kind of matrix:")
    console.print(_summary(rows))
    print("changed the most:")
    for row in sorted(rows, key=lambda row: -row["change"])[:top]:
        more = ", ".join(f"{head}: {cell}" for head, cell in list(row.items())[3:])
        print(f"  layer {row['layer']}, {row['module']}: {row['change']:.4f}; {more}")
    print(f"'selfadapt experts show {name} --all' shows all {len(rows)}")


def _mixture(provenance: Mapping[str, Any]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table("layer", *provenance["experts"], box=box.SIMPLE_HEAD)
    for layer, row in enumerate(provenance["alpha"]):
        table.add_row(str(layer) if len(provenance["alpha"]) > 1 else "all", *(f"{share:.3f}" for share in row))
    return table


def _summary(rows: Sequence[Mapping[str, Any]]) -> "Table":
    """Layers × kinds of matrices, with the mean of each kind."""
    from rich import box
    from rich.table import Column, Table

    kinds = list(dict.fromkeys(row["module"] for row in rows))
    layers: dict[int, dict[str, float]] = {}
    for row in rows:
        layers.setdefault(row["layer"], {})[row["module"]] = row["change"]
    table = Table("layer", *(Column(kind, justify="right", no_wrap=True) for kind in kinds), box=box.SIMPLE_HEAD)
    for layer, changes in layers.items():
        table.add_row(str(layer), *(f"{changes[kind]:.4f}" if kind in changes else "" for kind in kinds))
    table.add_section()
    columns = [[changes[kind] for changes in layers.values() if kind in changes] for kind in kinds]
    table.add_row("mean", *(f"{sum(column) / len(column):.4f}" for column in columns))
    return table


def _matrices(rows: Sequence[Mapping[str, Any]]) -> "Table":
    """A line for each matrix."""
    from rich import box
    from rich.table import Column, Table

    heads = (Column(head, no_wrap=True) for head in (rows[0] if rows else ()))
    table = Table(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    return table
