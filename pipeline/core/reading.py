"""Text files that anybody may have written, read within bounds of size, depth and form.

Whatever such a file does to a parser (JSON nested without end, numbers of a thousand digits, YAML that unfolds to
gigabytes or holds itself, a pipe in place of a file), its reader gets one sentence with the file's name.
"""

import json
import math
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.errors import UserError, out_of_memory

LARGEST = 1 << 30  # bytes of a file that is read as a whole
MOST = 1 << 20  # values of a YAML file, each alias counted as what it stands for
WHOLE = 1 << 63  # no setting is a larger number
DEEPEST = 100  # levels of brackets in YAML: each costs its parser time for every other one
AGAIN = "remove it and run its stage again"


def checked(path: Path, what: str, remedy: str = AGAIN) -> Path:
    """The path, if a regular file of a size that may be read is there. Raises FileNotFoundError where nothing is."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise UserError(f"expected {what} in {path}, got what is no file; {remedy}")
    if about.st_size > LARGEST:
        raise UserError(f"expected {what} of at most {LARGEST >> 20} MB in {path}, got {about.st_size >> 20}; {remedy}")
    return path


@contextmanager
def formed(path: Path | str, what: str, remedy: str = AGAIN) -> Iterator[None]:
    """Turns what a file of another form does to its reader into a sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, ArithmeticError) as error:
        raise UserError(f"expected {what} in {path}, got another form ({_short(repr(error))}); {remedy}") from None


@contextmanager
def foreign(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Turns whatever another library says of a file that it cannot read into a sentence. It may say it in any way."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise out_of_memory(error) or UserError(
            f"expected {what} in {path}, got: {_short(error) or type(error).__name__}; {remedy}"
        ) from None


def read_whole(path: Path, what: str, remedy: str = AGAIN) -> str:
    """The text of a file. Raises FileNotFoundError where there is none, and UserError where it cannot be read."""
    try:
        return checked(path, what, remedy).read_text(encoding="utf-8-sig")  # some editors begin with a mark
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected {what} in {path}, got: {_short(error)}; {remedy}") from None


def json_of(text: str, path: Path | str, remedy: str = AGAIN) -> Any:
    """The value that a text is, as JSON. path: named in the sentence where it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"expected JSON in {path}, got values nested without end; {remedy}") from None
    except ValueError as error:
        raise UserError(f"expected JSON in {path}, got: {_short(error)}; {remedy}") from None


class _Loader(yaml.SafeLoader):
    """YAML as settings need it: texts, numbers, truth values, lists and mappings; no key twice. A date is a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if str(tag).rpartition(":")[2] not in ("timestamp", "binary", "set", "omap", "pairs")
    }

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= DEEPEST:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key.value}' twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def yaml_of(text: str, path: Path | str, remedy: str = "correct it") -> Any:
    """The value that a text is, as YAML. path: named in the sentence where it is none."""
    try:
        value = yaml.load(text, _Loader)
    except RecursionError:
        raise UserError(f"expected YAML in {path}, got values nested without end; {remedy}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # !!int x, a list as a key
        raise UserError(f"expected YAML in {path}, got: {_short(error)}; {remedy}") from None
    _count(value, path, remedy)
    return value


def read_yaml(path: Path, remedy: str = "correct it") -> Any:
    """The value of a YAML file. Raises FileNotFoundError where there is none."""
    return yaml_of(read_whole(path, "YAML", remedy), path, remedy)


def _count(value: Any, path: Path | str, remedy: str) -> None:
    """Refuse what is no plain value, what holds itself, and what is too much once its aliases are unfolded."""
    sizes: dict[int, int] = {}
    inside: set[int] = set()

    def size(part: Any) -> int:
        if isinstance(part, int | float):
            if (isinstance(part, float) and not math.isfinite(part)) or abs(part) >= WHOLE:
                raise UserError(f"expected numbers below 2^63 in {path}, got {_short(part)}; {remedy}")
            return 1
        if not isinstance(part, Mapping | list):
            return 1
        if id(part) in inside:
            raise UserError(f"expected values in {path}, got one that holds itself; {remedy}")
        if id(part) not in sizes:
            inside.add(id(part))
            sizes[id(part)] = 1 + sum(size(one) for one in _inner(part, path, remedy))
            inside.discard(id(part))
        if sizes[id(part)] > MOST:
            raise UserError(f"expected at most {MOST} values in {path}, got more once aliases are unfolded; {remedy}")
        return sizes[id(part)]

    try:
        size(value)
    except RecursionError:
        raise UserError(f"expected YAML in {path}, got values nested without end; {remedy}") from None


def _inner(part: Mapping[Any, Any] | list[Any], path: Path | str, remedy: str) -> Sequence[Any]:
    if isinstance(part, list):
        return part
    for key in part:
        if not isinstance(key, str | int) or isinstance(key, bool):  # 'on' and 'no' are truth values in YAML
            raise UserError(f"expected texts as keys in {path}, got {_short(repr(key))}; put it in quotes, or {remedy}")
    return list(part.values())


def _short(said: Any) -> str:
    try:
        text = str(said)
    except ValueError:  # an int of more digits than Python writes
        return "a number of thousands of digits"
    return " ".join(text.split())[:300]
