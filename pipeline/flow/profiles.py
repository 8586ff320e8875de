"""Profiles: settings under a name, in ``pipeline/profiles``, and changes to them.

A profile may stand on another (``like: laptop``) and state what differs. Mappings are laid over each other; what is
null goes. What a profile makes (``MADE``) it says anew, or takes all of it over.

What is written to ``params.yaml`` is the whole of it, with its comments: DVC reads no other file.
"""

import difflib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.tokens import CommentToken

from pipeline.core.config import lookup, read_params
from pipeline.core.errors import UserError

FOLDER = Path(__file__).parents[1] / "profiles"
MADE = ("tables", "heads", "spectra", "skill_reports", "benchmark_reports")
WIDTH = 4096  # columns: a line stays a line
COLUMN = 36  # of comments behind short lines


def names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a profile. UserError if there is none of this name."""
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the profiles are: {', '.join(names())}"
        raise UserError(f"expected a profile, got '{name}'; {hint}")
    return FOLDER / f"{name}.yaml"


def headline(name: str) -> str:
    """What a profile is, in its first line."""
    first = path_of(name).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip().removeprefix(f"{name}:").strip()


def text(name: str) -> str:
    """A profile as ``params.yaml`` has it."""
    path = path_of(name)
    own = path.read_text(encoding="utf-8")
    if "like" not in read_params(path):
        return own
    head = own[: own.index("\nprofile:") + 1]  # the comment that says what it is, in place of the other's
    whole = _dumped(_whole(name, ()))
    return head + whole[whole.index("profile:") :]


def edited(params: str, change: Callable[[CommentedMap], None], where: str = "params.yaml") -> str:
    """Settings after ``change`` has changed them in place; comments stay."""
    loaded = _loaded(params, where)
    change(loaded)
    return _dumped(loaded)


def changed(params: str, changes: list[str], where: str = "params.yaml") -> str:
    """Settings with ``place=value`` changes made, e.g. ``seeds=[0, 1, 2]`` or ``reinforce.steps=20``; comments stay.

    The last part of a place may be new (``tables.table1.seeds``): ``added`` names such places.
    """

    def make(loaded: CommentedMap) -> None:
        for place, value in _places(changes):
            *parents, key = place.split(".")
            section: Any = loaded
            for parent in parents:
                if not isinstance(section.get(parent), dict):
                    known = [name for name, one in section.items() if isinstance(one, dict)]
                    raise UserError(
                        f"expected a setting of {where}, but '{place}' is not there, no section '{parent}'; sections: "
                        f"{', '.join(known)}"
                    )
                section = section[parent]
            section[key] = _loaded(f"value: {value}", f"'{place}={value}'")["value"]

    return edited(params, make, where)


def added(before: Mapping[str, Any], changes: list[str]) -> list[str]:
    """The places that changes name and settings have not got."""
    new = []
    for place, _ in _places(changes):
        try:
            lookup(before, place)
        except UserError:
            new.append(place)
    return new


def _places(changes: list[str]) -> Iterator[tuple[str, str]]:
    """Each change as its place and its value."""
    for change in changes:
        place, sign, value = change.partition("=")
        if not (sign and place):
            raise UserError(f"expected a change as place=value, got '{change}'; write, say, seeds=[0,1,2]")
        yield place.strip(), value


def _whole(name: str, inside: tuple[str, ...]) -> CommentedMap:
    """A profile laid over the one it is like."""
    if name in inside:
        raise UserError(
            f"expected another profile, but the profile '{name}' is like itself ({' like '.join((*inside, name))}); "
            "break the circle"
        )
    path = path_of(name)
    own = _loaded(path.read_text(encoding="utf-8"), str(path))
    start = own.pop("like", None)
    if start is None:
        return own
    whole = _whole(str(start), (*inside, name))
    if any(section in own for section in MADE):
        for section in MADE:
            whole.pop(section, None)
    _lay_over(whole, own)
    return whole


def _lay_over(start: Any, changes: Any) -> None:
    for key, value in changes.items():
        if value is None:
            start.pop(key, None)
        elif isinstance(value, dict) and isinstance(start.get(key), dict) and "like" not in value:
            _lay_over(start[key], value)
            _comment(start, key, changes, keep=True)
        else:
            _comment(start, key, changes, keep=False)
            start[key] = value


def _comment(start: Any, key: Any, changes: Any, *, keep: bool) -> None:
    """The comment behind a key becomes that of its change. keep: without one, the old comment stays.

    What stands below the old one, in lines of its own, stays in any case: it is about what follows.
    """
    old, new = (one.ca.items[key][2] if key in one.ca.items else None for one in (start, changes))
    said, _, below = (old.value if old else "\n").partition("\n")
    says = new.value.partition("\n")[0] if new else ""
    if key not in start:
        below = new.value.partition("\n")[2] if new else ""
    text = f"{says or (said if keep else '')}\n{below}"
    column = getattr(getattr(new or old, "start_mark", None), "column", COLUMN)
    if text == "\n":
        start.ca.items.pop(key, None)
    else:
        start.ca.items[key] = [None, None, CommentToken(text, CommentMark(min(COLUMN, column))), None]


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = WIDTH
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _loaded(source: str, where: str) -> CommentedMap:
    try:
        value = _yaml().load(source)
    except YAMLError as error:
        raise UserError(f"expected YAML in {where}, got: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(value, CommentedMap):
        raise UserError(f"expected a mapping of sections in {where}, got {type(value).__name__}; correct it")
    return value


def _dumped(value: CommentedMap) -> str:
    stream = io.StringIO()
    _yaml().dump(value, stream)
    return stream.getvalue()
