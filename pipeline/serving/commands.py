"""Commands of ``selfadapt`` for after a run: talk to the adapted models, take experts away, serve them.

What a person asked for goes to standard output; what was decided and what it cost to standard error, so that
``selfadapt generate … > answer.txt`` holds the answer alone.
"""

import contextlib
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.core.errors import UserError
from pipeline.serving import experts
from pipeline.serving.http.limits import Limits

if TYPE_CHECKING:
    from pipeline.serving.assistant import Assistant
    from pipeline.serving.jobs import Answered, Decision

STRATEGIES = (
    "base; expert:NAME (one SVF expert); prompt or classifier (a first pass picks the expert); mixture:FILE (a "
    "mixture's name, or a .json or .safetensors file); csreft, loreft; lora:NAME. 'experts list' names them."
)
LIMITS = ", ".join(f"{field.name}={field.default}" for field in fields(Limits))
Folder = Annotated[Path, typer.Option("--project", "-C", help="The project's folder.", metavar="FOLDER")]
Strategy = Annotated[str, typer.Option("--strategy", "-s", help=STRATEGIES, metavar="STRATEGY")]
Tokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", help="The longest answer (default: 256, or what fits).")
]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0: the likeliest token; above: sampled.")]
Seed = Annotated[int, typer.Option(help="Of sampling.")]
Plain = Annotated[
    bool, typer.Option("--plain", help="Ask as it stands, not in the form that an expert was trained in.")
]
System = Annotated[str, typer.Option(help="A system message.", metavar="TEXT")]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", "-i", help="A picture to ask about; several may be given.", metavar="FILE"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``selfadapt``."""
    for command in (generate, chat, compare, export, serve):
        app.command()(command)
    app.add_typer(experts.app, name="experts")


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


def _turns(prompt: str, system: str, images: list[Path] | None = None) -> list[dict[str, Any]]:
    shown = {"images": [str(path) for path in images]} if images else {}
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt, **shown}]


def _show(assistant: "Assistant", turns: Any, strategy: str, **how: Any) -> str:
    """Stream one answer; returns its text."""
    from pipeline.serving.jobs import Answered

    for news in assistant.stream(turns, strategy, **how):
        if isinstance(news, str):
            print(news, end="", flush=True)
        elif isinstance(news, Answered):
            print(flush=True)
            _note(_cost(news))
            return news.text
        else:
            if news.chosen != strategy:
                _note(_decided(news))
            if news.form:
                _note(f"asked in the form of the task {news.form}; --plain asks as it stands")
    return ""


def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; '-' reads it from standard input.")],
    strategy: Strategy = "base",
    image: Images = None,
    max_new_tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    system: System = "",
    plain: Plain = False,
    project: Folder = Path(),
) -> None:
    """Answer one prompt, streamed. A model with eyes answers about pictures, too (--image).

    An expert is asked in the form that it was trained in, behind the system turn and the worked questions of its task,
    unless --plain or a --system of your own is given. What the first pass decided, and what the answer cost, is told
    on standard error.
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "plain": plain}
    _show(_open(project), _turns(text, system, image), strategy, **how)


def chat(
    strategy: Strategy = "base",
    max_new_tokens: Tokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    system: System = "",
    plain: Plain = False,
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
                raise UserError(f"expected /strategy NAME, /strategies, /new or /quit, got '{command}'; correct it")
            elif line:
                how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "plain": plain}
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
    image: Images = None,
    system: System = "",
    plain: Plain = False,
    project: Folder = Path(),
) -> None:
    """Answer one prompt under every strategy, side by side (they share one batch, greedily)."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    assistant = _open(project)
    names = strategy or assistant.strategies()
    turns = _turns(prompt, system, image)
    with Console(stderr=True).status(f"answering under {len(names)} strategies"):
        answers = assistant.answer([(turns, name) for name in names], max_new_tokens=max_new_tokens, plain=plain)
    table = Table(Column("strategy", no_wrap=True), "answer", "decided", "tokens", show_lines=True)
    for name, answer in zip(names, answers, strict=True):
        decided = "" if answer.decision.chosen == name else _decided(answer.decision)
        tokens = f"{answer.tokens}{'' if answer.ended == 'stop' else '…'}"
        table.add_row(Text(name), Text(answer.text.strip()), Text(decided), Text(tokens))
    Console().print(table)


def export(
    strategy: Annotated[str, typer.Argument(help="What to export: expert:NAME, lora:NAME, mixture:NAME, csreft, …")],
    folder: Annotated[Path, typer.Argument(help="A new folder to write.")],
    kind: Annotated[
        Literal["merged", "expert", "peft"],
        typer.Option(
            "--as",
            help="A whole checkpoint for plain transformers; the expert alone with its model card; or as peft has it.",
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

    A merged checkpoint loads with transformers alone. An expert's folder is used again as expert:FOLDER. As peft, it
    loads with PeftModel.from_pretrained behind 'import selfadapt', and as expert:FOLDER, too.
    """
    from pipeline.serving import export as exporting
    from pipeline.serving.project import Project

    if dry_run and not push_to:
        raise UserError("expected --dry-run together with --push-to, got it alone; name the repository")
    if push_to:
        exporting.check_repository(push_to)
    opened = Project(project)
    if kind == "merged":
        exporting.merged(opened, strategy, folder, dtype)
    else:
        {"expert": exporting.expert, "peft": exporting.peft}[kind](opened, strategy, folder)
    print(f"{folder}: {strategy} as {kind}")
    if push_to:
        files = exporting.push(folder, push_to, dry_run=dry_run)
        for name, size in files:
            print(f"{'would upload' if dry_run else 'uploaded'} {name} ({size} bytes) to {push_to}")


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    rows: Annotated[int, typer.Option(min=1, help="Answers at once; the rest wait in line.")] = 32,
    limit: Annotated[
        list[str] | None,
        typer.Option(help=f"What a request or a client may cost, one by one: {LIMITS}.", metavar="NAME=NUMBER"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name that this machine is reached by, beside localhost and its own.", metavar="NAME"),
    ] = None,
    api_key: Annotated[
        str,
        typer.Option(
            help="What a request has to carry as its API key (none: whoever reaches the address can ask).",
            envvar="SELFADAPT_API_KEY",
            metavar="KEY",
            show_default=False,
        ),
    ] = "",
    project: Folder = Path(),
) -> None:
    """Serve the adapted models, OpenAI-compatible: /v1/chat/completions, /v1/completions and /v1/models.

    A request's 'model' names its strategy; requests with different ones share a batch.
    """
    from pipeline.serving.http.server import run

    limits = Limits.of(limit or [])
    run(project, host=host, port=port, rows=rows, limits=limits, hosts=allow_host or [], key=api_key)
