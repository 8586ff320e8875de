"""Reading the code off an answer.

An answer is cut into fenced blocks (``` or ~~~, indented or not, with any word behind the fence) and the prose between
them. Of each block, and of each prose from where code begins in it, the longest run of lines from the top that parses
counts: an answer that was cut off, or goes on in prose, is judged by what it had said. The code of an answer is the
first such piece that defines the function, with what it uses of the other pieces: imports, helpers and constants.

A fence inside a docstring ends no block. Whatever an answer holds, reading takes time in proportion to its length.
"""

import ast
import builtins
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_FENCE = re.compile(r"[ \t]*(?P<marker>`{3,}|~{3,})(?P<rest>.*)")
_UNREADABLE = re.compile("[\0\ud800-\udfff]")
# Where code begins outside a fence: a definition, an import, a decorator, or a name that is given a value.
_START = re.compile(r"def |async def |class |import |from \w|@\w|[A-Za-z_]\w*\s*(?::[^=]*)?=(?!=)")
_ABOVE = re.compile(r"\s|#|[)\]}]|$")  # lines that may stand in code above a definition, too
# How much is parsed at the most while the end of a piece is looked for, each error telling of an earlier line.
_TRIES, _PARSED, _PARSED_TIMES = 40, 100_000, 4  # times; characters, and as a multiple of the piece
_FENCES_INSIDE = 6  # how many fences are looked at for the one that ends a block with an open docstring
_BUILT_IN = frozenset(dir(builtins))

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class _Piece:
    """A piece of code of an answer, and the same as a tree."""

    source: str
    tree: ast.Module

    @cached_property
    def lines(self) -> list[str]:
        return self.source.split("\n")


def read(answer: str, function: str) -> str | None:
    """The code an answer gives; None where it does not define ``function``."""
    text = _UNREADABLE.sub("\ufffd", answer.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", ""))
    pieces = [piece for fenced, lines in _segments(_lines(text)) for piece in _pieces(lines, function, fenced=fenced)]
    definitions = [(piece, definition) for piece in pieces if (definition := _definition(piece.tree, function))]
    if not definitions:
        return None
    chosen, _ = next((pair for pair in definitions if not _is_stub(pair[1])), definitions[0])
    return _with_helpers(chosen, [piece for piece in pieces if piece is not chosen])


# ---- from an answer to its pieces ----------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[str]:
    """The lines of a text. A fence that ends a line of code stands on a line of its own."""
    for line in text.split("\n"):
        whole = line.rstrip()
        if whole.endswith("```") and whole.count("```") % 2 and not _FENCE.match(line):
            yield whole[:-3]
            yield "```"
        else:
            yield line


def _segments(text: Iterator[str]) -> Iterator[tuple[bool, list[str]]]:
    """The fenced blocks of an answer and the prose between them, in order: whether it is fenced, and its lines."""
    lines = list(text)
    prose: list[str] = []
    place = 0
    while place < len(lines):
        fence = _FENCE.fullmatch(lines[place])
        if fence is None:
            prose.append(lines[place])
            place += 1
            continue
        yield False, prose
        prose = []
        end = _end_of_block(lines, place + 1, fence["marker"][0])
        yield True, lines[place + 1 : end]
        closing = _FENCE.fullmatch(lines[end]) if end < len(lines) else None
        # A bare fence closes its block; one with a word behind it opens the next block, too.
        place = end + 1 if closing and not closing["rest"].strip() else end
    yield False, prose


def _end_of_block(lines: Sequence[str], start: int, mark: str) -> int:
    """The line with the fence that ends a block, or the number of lines if none does.

    mark: what fences of this block are made of. A fence is passed over where a docstring is open.
    """
    fences = (
        place
        for place in range(start, len(lines))
        if (fence := _FENCE.fullmatch(lines[place])) and fence["marker"][0] == mark
    )
    first = len(lines)
    for count, end in enumerate(itertools.islice(fences, _FENCES_INSIDE)):
        first = end if count == 0 else first
        try:
            _parse("\n".join(lines[start:end]))
        except SyntaxError as error:
            if "unterminated triple-quoted" in str(error.msg):
                continue
        except (ValueError, RecursionError, MemoryError):
            pass
        return end
    return first


def _pieces(lines: Sequence[str], function: str, *, fenced: bool) -> Iterator[_Piece]:
    """The pieces of code in a segment: the whole block; in prose, from the first line that looks like code, and from
    the beginning of the code around the function, where that is another line.
    """
    if fenced:
        starts = [0]
        if next((line for line in lines if line.strip()), "")[:1].isspace():
            lines = textwrap.dedent("\n".join(lines)).split("\n")
    else:
        starts = [place for place, line in enumerate(lines) if _START.match(line)][:1]
        around = _start_around(lines, function)
        starts += [around] if around is not None and around not in starts else []
    for start in starts:
        if piece := _longest(lines[start:]):
            yield piece


def _start_around(lines: Sequence[str], function: str) -> int | None:
    """Where the code begins that leads to the function's definition; None without one."""
    name = re.escape(function)
    defining = re.compile(rf"def\s+{name}\b|class\s+Solution\b|{name}\s*(?::[^=]*)?=(?!=)")
    start = next((place for place, line in enumerate(lines) if defining.match(line)), None)
    while start and (_START.match(lines[start - 1]) or _ABOVE.match(lines[start - 1])):
        start -= 1
    while start is not None and not lines[start].strip():
        start += 1
    return start


def _longest(lines: Sequence[str]) -> _Piece | None:
    """The longest run of lines from the top that is Python; None for nothing."""
    end, left = len(lines), _PARSED + _PARSED_TIMES * sum(map(len, lines))
    for _ in range(_TRIES):
        source = "\n".join(lines[:end]).rstrip()
        left -= len(source)
        if not source or left < 0:
            return None
        try:
            return _Piece(source, _parse(source))
        except SyntaxError as error:
            last = source.count("\n")  # the number of lines before the last one
            end = max(0, min(last, (error.lineno or 1) - 1))
        except (ValueError, RecursionError, MemoryError):
            return None
    return None


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model may write "\d" or "x is 1" without our console hearing of it
        return ast.parse(source)


# ---- which piece, and what it needs --------------------------------------------------------------------------------


def _definition(tree: ast.Module, function: str) -> Definition | None:
    """What defines a function at the top level: a ``def``, a value, or a method of a class ``Solution``."""
    for part in tree.body:
        if isinstance(part, ast.FunctionDef) and part.name == function:
            return part
        if isinstance(part, ast.Assign | ast.AnnAssign) and function in _bound(part):
            return part
        if isinstance(part, ast.ClassDef) and part.name == "Solution":
            return next(
                (method for method in part.body if isinstance(method, ast.FunctionDef) and method.name == function),
                None,
            )
    return None


def _is_stub(definition: Definition) -> bool:
    """Whether a function has no body yet: a docstring, ``pass`` or ``...``, as in a prompt that is repeated."""
    return isinstance(definition, ast.FunctionDef) and all(
        isinstance(part, ast.Pass) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in definition.body
    )


def _bound(part: ast.stmt) -> set[str]:
    """The names that a statement gives a meaning to, at its own level."""
    if isinstance(part, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in part.names}
    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {part.name}
    targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _missing(tree: ast.AST) -> set[str]:
    """The names that code reads and nowhere gives a meaning to."""
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    known = {name.id for name in names if not isinstance(name.ctx, ast.Load)}
    known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    known |= {bound for node in nodes if isinstance(node, ast.stmt) for bound in _bound(node)}
    return {name.id for name in names} - known - _BUILT_IN


def _with_helpers(chosen: _Piece, others: Sequence[_Piece]) -> str:
    """A piece's source, with those statements of the other pieces that give a meaning to names it lacks."""
    parts = [(piece, part) for piece in others for part in piece.tree.body]
    giving: dict[str, list[int]] = {}
    for place, (_, part) in enumerate(parts):
        for name in _bound(part):
            giving.setdefault(name, []).append(place)
    wanted: set[int] = set()
    missing = list(_missing(chosen.tree)) if parts else []
    while missing:
        for place in giving.pop(missing.pop(), ()):
            if place not in wanted:
                wanted.add(place)
                missing += _missing(parts[place][1])
    helpers = [_source(*parts[place]) for place in sorted(wanted)]
    first = chosen.tree.body[0]
    begins = isinstance(first, ast.ImportFrom) and first.module == "__future__"  # nothing may stand before it
    return "\n\n".join([chosen.source, *helpers] if begins else [*helpers, chosen.source])


def _source(piece: _Piece, part: ast.stmt) -> str:
    """The lines of a statement, its decorators among them."""
    first = min([part.lineno, *(decorator.lineno for decorator in getattr(part, "decorator_list", []))])
    return "\n".join(piece.lines[first - 1 : part.end_lineno])
