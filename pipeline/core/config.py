"""Strict reading of ``params.yaml``.

A section of the file is a frozen model beside the code it configures, so that a new setting of one method
changes no file that another method depends on:

    class Training(Section, at="svf.training"): ...
    class TaskSettings(Section, at="tasks.{task}"): ...   # filled from the stage's argument ``task``

No defaults for scientific numbers: what is not in ``params.yaml`` does not run.

A mapping may stand on another and say what differs: ``{like: lora.adapter, rank: 4}`` is ``lora.adapter`` with another
rank. It names what YAML would alias: ``dvc exp run -S`` writes the old values of an alias back, in silence.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.core.errors import UserError
from pipeline.core.reading import read_yaml

SHARE = "SELFADAPT_THREADS"  # in the environment: how many threads a stage may have at most, as others run beside it


class Section(BaseModel):
    """One section of params.yaml: frozen, and strict about unknown, missing and mistyped keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    at: ClassVar[str] = ""

    def __init_subclass__(cls, at: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if at:
            cls.at = at

    @classmethod
    def location(cls, arguments: Mapping[str, str]) -> str:
        """Where in params.yaml this section stands, e.g. ``tasks.sums``."""
        return cls.at.format(**arguments)

    @classmethod
    def places(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> tuple[str, ...]:
        """All places of params.yaml that this section is read from: its own, and those it stands on."""
        return sources(params, cls.location(arguments))

    @classmethod
    def read(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> Self:
        """This section of the settings ``params``, for a stage with these arguments."""
        where = cls.location(arguments)
        return cls.parse(settings(params, where), where)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """Check ``value`` against this model; ``where`` names it in an error."""
        try:
            # JSON mode: strict about numbers and words, yet a YAML list may fill a tuple.
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            # A misspelt setting is missing under its right name, too: what is written is what is said.
            first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
            raise UserError(_sentence(cls, first, where)) from None


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The keys known at ``path`` inside ``model``, as far as it leads through plain nested models."""
    for key in path:
        field = model.model_fields.get(str(key))
        nested = field.annotation if field else None
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return []
        model = nested
    return sorted(model.model_fields)


def _sentence(model: type[BaseModel], problem: Any, where: str) -> str:
    *parents, key = problem["loc"] or ("",)
    name = ".".join(str(part) for part in (where, *problem["loc"]) if part != "")
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, tuple(parents))
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known settings: {', '.join(known)}"
        return f"expected settings that a stage reads in params.yaml, but '{name}' is not a known setting; {hint}"
    if problem["type"] == "missing":
        return (
            f"expected every setting of a stage in params.yaml, but '{name}' is missing; add it (profiles in "
            "pipeline/profiles show its use)"
        )
    return (
        f"expected another value in params.yaml, where '{name}' does not fit: {problem['msg'].lower()}, got "
        f"{problem['input']!r:.300}; correct it"
    )


def read_params(path: Path) -> dict[str, Any]:
    """The whole of params.yaml, unchecked."""
    try:
        value = read_yaml(path)
    except FileNotFoundError:
        raise UserError(
            f"expected the settings in {path}, which is not there; run 'selfadapt profile use laptop'"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"expected a mapping of sections in {path}, got {type(value).__name__}; correct it")
    return value


def read_plan(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The plan that ``pipeline.flow.plan`` has written: for each kind of stage, its items by key."""
    plan = read_params(path).get("plan")
    if not isinstance(plan, dict):
        raise UserError(f"expected a plan in {path}, got none; run 'selfadapt plan'")
    for section, items in plan.items():
        if not isinstance(items, dict | None):
            raise UserError(
                f"expected items by key at 'plan.{section}' in {path}, got another form; run 'selfadapt plan'"
            )
    return {section: dict(items or {}) for section, items in plan.items()}


def lookup(params: Mapping[str, Any], where: str) -> Any:
    """The value at a dotted place, e.g. ``tasks.sums``; the whole of the settings where ``where`` is empty."""
    if not where:
        return params
    value: Any = params
    done: list[str] = []
    for key in where.split("."):
        if not isinstance(value, Mapping) or key not in value:
            known = sorted(value) if isinstance(value, Mapping) else []
            close = difflib.get_close_matches(key, known, n=1)
            place = f"'{'.'.join(done)}'" if done else "the file"
            hint = f"did you mean '{close[0]}'?" if close else f"{place} has: {', '.join(known) or 'nothing'}"
            raise UserError(f"params.yaml: expected '{where}', but {place} has no '{key}'; {hint}")
        value = value[key]
        done.append(key)
    return value


def settings(params: Mapping[str, Any], where: str) -> Any:
    """The value at a dotted place, each ``like`` in it replaced by what it names. UserError if that is not there."""
    return _resolved(params, where)[0]


def sources(params: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The places that ``settings`` reads: the one asked for, then those that a ``like`` names, each once."""
    return tuple(dict.fromkeys(_resolved(params, where)[1]))


def _resolved(params: Mapping[str, Any], where: str, inside: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    if where in inside:
        raise UserError(
            f"expected other settings, but '{where}' is like itself ({' like '.join((*inside, where))}); break the "
            "circle in params.yaml"
        )
    places = [where]

    def resolve(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        own = {key: resolve(part) for key, part in value.items() if key != "like"}
        if "like" not in value:
            return own
        start, more = _resolved(params, str(value["like"]), (*inside, where))
        if not isinstance(start, Mapping):
            raise UserError(
                f"params.yaml: expected a mapping at '{value['like']}', which '{where}' is like; name another"
            )
        places.extend(more)
        return merged(start, own)

    return resolve(lookup(params, where)), places


def merged(start: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``start`` with ``changes`` laid over it, mapping by mapping."""
    found = dict(start)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found
