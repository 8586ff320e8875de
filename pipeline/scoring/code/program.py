"""A model-written program, run in its own process behind all walls. Inside the sandbox only; standard library only."""

import ast
import os
import random
import signal
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.scoring.code import values

MODULE = "solution"  # the name of the module that the program is
CHANNEL = 3  # the file descriptor that values go out on
# of CPU time, for writing a value down: our work, which a right answer must not lose its own time by; bounded all the
# same, since the methods of a program's own type are run for it
WRITING_SECONDS = 20


def run(request: Mapping[str, Any], channel: int, nowhere: int) -> None:
    """Run the program, call its function, and write a line of JSON for each call: its value, or what it raised.

    A call that is too late ends all: it and those after it have no line. channel, nowhere: open files; the lines go to
    the first, what the program prints to the second.
    """
    _settle(channel, nowhere)
    # Bound here, for the program may change the modules that they come from.
    write, encode, timer = os.write, values.line, signal.setitimer
    calls = [values.native(arguments) for arguments in request["calls"]]
    seconds = request["limits"]["call_seconds"]
    signal.signal(signal.SIGPROF, _too_late)
    function = _defined(request)
    for arguments in calls:
        try:
            timer(signal.ITIMER_PROF, seconds)
            value = function(*arguments)
            timer(signal.ITIMER_PROF, WRITING_SECONDS)
            answer = f'["value", {encode(value)}]'
            timer(signal.ITIMER_PROF, 0)
        except TooLate:
            return
        except BaseException as error:
            timer(signal.ITIMER_PROF, 0)
            answer = f'["raised", "{type(error).__name__}"]'
        write(CHANNEL, answer.encode() + b"\n")


def _settle(channel: int, nowhere: int) -> None:
    """Close all files but the channel; what is read is empty, what is printed goes nowhere."""
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.dup2(channel, CHANNEL)
    os.closerange(CHANNEL + 1, 4096)
    sys.argv = [""]
    random.seed(0)


def _defined(request: Mapping[str, Any]) -> Callable[..., Any]:
    """The function, after the program's own code has run as a module; ``before`` and ``after`` run in it, too."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module  # dataclasses and pickle look a class's module up
    names, name = vars(module), request["function"]
    exec(compile(request["before"], "before.py", "exec"), names)
    exec(compile(without_own_tests(request["source"]), "solution.py", "exec", dont_inherit=True), names)
    if name not in names and isinstance(names.get("Solution"), type):
        names[name] = getattr(names["Solution"](), name)
    exec(compile(request["after"], "after.py", "exec"), names)
    return names[name]


def without_own_tests(source: str) -> ast.Module:
    """A program whose own assertions, at its top level, end nothing when they fail: it is judged by our tests."""
    tree = ast.parse(source)
    for place, statement in enumerate(tree.body):
        if isinstance(statement, ast.Assert | ast.Expr) and not isinstance(
            getattr(statement, "value", None), ast.Constant
        ):
            handler = ast.ExceptHandler(ast.Name("AssertionError", ast.Load()), None, [ast.Pass()])
            tree.body[place] = ast.Try([statement], [handler], [], [])
    return ast.fix_missing_locations(tree)


class TooLate(BaseException):
    """A call has used its share of the CPU time."""


def _too_late(*_: object) -> None:
    raise TooLate
