"""The command line ``selfadapt``.

Everything heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import typer

from pipeline.core.errors import sentence
from pipeline.core.progress import written_anywhere
from pipeline.serving import commands
from selfadapt import doctor, graph, running, settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-adapting language models, from the base model to the report.\n\n"
    "'dvc repro' alone makes everything, one stage after the other. These commands are what else is needed: "
    "a choice of settings (profile), stages side by side (run), rows of your own (train), the record of all runs (ui), "
    "and what to do when something is missing (doctor). After the run: talk to the adapted model (generate, chat, "
    "compare), look into what was trained (experts), take it away (export) or serve it (serve).",
)
for part in (commands, running, settings, graph, doctor):
    part.register(app)


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
