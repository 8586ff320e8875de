"""Commands of ``selfadapt`` for after a run: talk to the adapted models, look into experts, take them away, serve them.

What a person asked for goes to standard output; what was decided and what it cost to standard error, so that
``selfadapt generate … > answer.txt`` holds the answer alone.
"""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.core.errors import UserError

if TYPE_CHECKING:
    from pipeline.serving.assistant import Assistant
    from pipeline.serving.engine import Answered, Decision

STRATEGIES = (
    "base; expert:NAME (one SVF expert); prompt or classifier (a first pass picks the expert); mixture:FILE (a "
    "mixture's name, or a .json or .safetensors file); csreft, loreft; lora:NAME."
)
Folder = Annotated[Path, typer.Option("--project", "-C", help="The project's folder.", metavar="FOLDER")]
Strategy = Annotated[str, typer.Option("--strategy", "-s", help=STRATEGIES, metavar="STRATEGY")]
Tokens = Annotated[int, typer.Option("--max-new-tokens", "-n", help="The longest answer.")]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0: the likeliest token; above: sampled.")]
Seed = Annotated[int, typer.Option(help="Of sampling.")]
System = Annotated[str, typer.Option(help="A system message.", metavar="TEXT")]

experts = typer.Typer(no_args_is_help=True, help="What was trained: list it, look into it.")


def register(app: typer.Typer) -> None:
    """Add the commands to ``selfadapt``."""
    for command in (generate, chat, compare, export, serve):
        app.command()(command)
    app.add_typer(experts, name="experts")


def _note(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False).print(text, style="dim", markup=False)


def _open(folder: Path) -> "Assistant":
    from rich.console import Console

    with Console(stderr=True).status("loading the base model"):
        from pipeline.serving.assistant import Assistant

        return Assistant.open(folder)


def _decided(decision: "Decision") -> str:
    weights = ", ".join(f"{name} {share:.2f}" for name, share in decision.weights.items())
    cost = f"; {decision.tokens} tokens, {decision.seconds:.2f} s" if decision.tokens else ""
    return f"{decision.chosen}{f' ({weights}{cost})' if weights else ''}"


def _cost(answer: "Answered") -> str:
    ended = {"stop": "", "length": ", stopped at --max-new-tokens", "time": ", stopped by time"}[answer.ended]
    return f"read {answer.prompt_tokens} tokens, wrote {answer.tokens} in {answer.seconds:.1f} s{ended}"


def _turns(prompt: str, system: str) -> list[dict[str, str]]:
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}]


def _show(assistant: "Assistant", turns: Any, strategy: str, **how: Any) -> str:
    """Stream one answer; returns its text."""
    from pipeline.serving.engine import Answered

    for news in assistant.stream(turns, strategy, **how):
        if isinstance(news, str):
            print(news, end="", flush=True)
        elif isinstance(news, Answered):
            print(flush=True)
            _note(_cost(news))
            return news.text
        elif news.chosen != strategy:
            _note(_decided(news))
    return ""


def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; '-' reads it from standard input.")],
    strategy: Strategy = "base",
    max_new_tokens: Tokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    system: System = "",
    project: Folder = Path(),
) -> None:
    """Answer one prompt, streamed.

    What the first pass decided, and what the answer cost, is told on standard error.
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    _show(_open(project), _turns(text, system), strategy, **how)


def chat(
    strategy: Strategy = "base",
    max_new_tokens: Tokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    system: System = "",
    project: Folder = Path(),
) -> None:
    """Talk to the model: each line is a turn, answers are streamed.

    /strategy NAME changes who answers, /strategies lists them, /new forgets the talk, /quit or Ctrl-D ends it;
    Ctrl-C cuts an answer short.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - lines can be edited and recalled, where there is such a library
    assistant = _open(project)
    assistant.strategy(strategy)
    first = _turns("", system)[:-1]
    turns = list(first)
    _note(f"{strategy}; /strategy NAME, /strategies, /new, /quit")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        command, _, rest = line.partition(" ")
        if command in ("/quit", "/exit"):
            return
        try:
            if command == "/new":
                turns = list(first)
            elif command == "/strategies":
                print("\n".join(assistant.strategies()))
            elif command == "/strategy":
                assistant.strategy(rest.strip())
                strategy = rest.strip()
                _note(strategy)
            elif command.startswith("/"):
                raise UserError(f"expected /strategy NAME, /strategies, /new or /quit, got '{command}'")
            elif line:
                how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
                asked = [*turns, {"role": "user", "content": line}]
                with contextlib.suppress(KeyboardInterrupt):
                    turns = [*asked, {"role": "assistant", "content": _show(assistant, asked, strategy, **how)}]
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def compare(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", "-s", help="One of those to compare (default: all that the run has made)."),
    ] = None,
    max_new_tokens: Tokens = 64,
    system: System = "",
    project: Folder = Path(),
) -> None:
    """Answer one prompt under every strategy, side by side (they share one batch, greedily)."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    assistant = _open(project)
    names = strategy or assistant.strategies()
    turns = _turns(prompt, system)
    with Console(stderr=True).status(f"answering under {len(names)} strategies"):
        answers = assistant.answer([(turns, name) for name in names], max_new_tokens=max_new_tokens)
    table = Table(Column("strategy", no_wrap=True), "answer", "decided", "tokens", show_lines=True)
    for name, answer in zip(names, answers, strict=True):
        decided = "" if answer.decision.chosen == name else _decided(answer.decision)
        tokens = f"{answer.tokens}{'' if answer.ended == 'stop' else '…'}"
        table.add_row(Text(name), Text(answer.text.strip()), Text(decided), Text(tokens))
    Console().print(table)


@experts.command("list")
def list_experts(project: Folder = Path()) -> None:
    """Name the experts, adapters and mixtures that the run has made, with what the report measured of them."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline.serving.export import artifact, measured
    from pipeline.serving.project import Project

    found = Project(project)
    names = [*(f"expert:{name}" for name in found.experts), *(f"lora:{name}" for name in found.loras)]
    names += [*found.adapters, *(f"mixture:{name}" for name in found.mixtures)]
    right = [Column(head, justify="right", no_wrap=True) for head in ("parameters", "accuracy, %", "base")]
    table = Table(Column("name", no_wrap=True), right[0], "task", *right[1:], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        path = artifact(found, name)
        if not path.is_file():
            table.add_row(name, "not made yet")
            continue
        _, made = found.read(path)
        head = [name, f"{made['parameters']:,}".replace(",", " ")]
        numbers = measured(found, path)
        if not numbers:
            table.add_row(*head, ", ".join(made.get("tasks") or [str(made.get("task"))]), "not measured")
        for one in numbers:
            mean = f"{100 * one.mean:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"
            table.add_row(*head, one.task, mean, "" if one.base is None else f"{100 * one.base:.1f}")
            head = ["", ""]
    Console().print(table)
    print("in brackets: 95 % intervals; 'selfadapt experts show NAME' says what one of them changed")


@experts.command("show")
def show_expert(
    name: Annotated[str, typer.Argument(help="A name, as 'selfadapt experts list' gives it.")],
    top: Annotated[int, typer.Option(min=1, help="How many components to name.")] = 3,
    project: Folder = Path(),
) -> None:
    """What an expert changed, per layer and module, and its most changed components.

    'change' is ‖W' − W‖ / ‖W‖; for edits of hidden states, how far the edit is from doing nothing. Component σ0 is
    the largest singular value's.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline.serving.describe import changes
    from pipeline.serving.export import artifact
    from pipeline.serving.project import Project

    found = Project(project)
    adapter, made = found.read(artifact(found, name if ":" in name or name in found.adapters else f"expert:{name}"))
    rows = changes(adapter, found.factors, top)
    console = Console()
    print(f"{name}: {made['method']}, {made['parameters']} parameters")
    if "alpha" in made:
        print(f"how its experts are mixed ({made['configuration']}):")
        mixture = Table("layer", *made["experts"], box=box.SIMPLE_HEAD)
        for layer, row in enumerate(made["alpha"]):
            mixture.add_row(str(layer) if len(made["alpha"]) > 1 else "all", *(f"{share:.3f}" for share in row))
        console.print(mixture)
    heads = (Column(head, no_wrap=True) for head in (rows[0] if rows else ()))
    table = Table(*heads, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    console.print(table)


def export(
    strategy: Annotated[str, typer.Argument(help="What to export: expert:NAME, lora:NAME, mixture:NAME, csreft, …")],
    folder: Annotated[Path, typer.Argument(help="A new folder to write.")],
    kind: Annotated[
        Literal["merged", "expert"],
        typer.Option(
            "--as", help="A whole checkpoint for plain transformers, or the expert alone with its model card."
        ),
    ] = "merged",
    dtype: Annotated[str, typer.Option(help="Of a merged checkpoint: float32 or bfloat16.")] = "float32",
    push_to: Annotated[
        str, typer.Option(help="Upload it to this repository of a model hub.", metavar="OWNER/NAME")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --push-to: check everything, upload nothing.")
    ] = False,
    project: Folder = Path(),
) -> None:
    """Write an adapted model, or an expert, to take away.

    A merged checkpoint loads with transformers alone. An expert's folder is used again as expert:FOLDER.
    """
    from pipeline.serving import export as exporting
    from pipeline.serving.project import Project

    if dry_run and not push_to:
        raise UserError("expected --dry-run together with --push-to, got it alone; name the repository")
    if push_to:
        exporting.check_repository(push_to)
    found = Project(project)
    if kind == "merged":
        exporting.merged(found, strategy, folder, dtype)
    else:
        exporting.expert(found, strategy, folder)
    print(f"{folder}: {strategy} as {kind}")
    if push_to:
        files = exporting.push(folder, push_to, dry_run=dry_run)
        for name, size in files:
            print(f"{'would upload' if dry_run else 'uploaded'} {name} ({size} bytes) to {push_to}")


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    rows: Annotated[int, typer.Option(min=1, help="Answers at once; the rest wait in line.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Requests in line; more are refused (429).")] = 128,
    body_bytes: Annotated[int, typer.Option(min=1, help="The largest request (413).")] = 1_000_000,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer a request may ask for.")] = 1024,
    seconds: Annotated[float, typer.Option(min=0.1, help="The longest time of one request.")] = 120.0,
    project: Folder = Path(),
) -> None:
    """Serve the adapted models, OpenAI-compatible: /v1/models, /v1/chat/completions, with streaming.

    A request's 'model' names its strategy; requests with different ones share a batch. There is no password: what
    can reach the address can ask.
    """
    from pipeline.serving.http import Limits, run

    limits = Limits(queue=queue, body_bytes=body_bytes, max_new_tokens=max_new_tokens, seconds=seconds)
    run(Path(project), host=host, port=port, rows=rows, limits=limits)
