"""How a row of a table is trained: the settings of its adapter and of its training, wherever they stand.

A row may give them itself (``rows.<row>.adapter``, ``.training``, ``.sweep`` in params.yaml), or leave them to its
method:

    part      by default
    adapter   ``svf`` for SVF, ``<method>.adapter`` for any other
    training  ``reinforce`` by policy gradient, ``<method>.training`` on reference answers
    sweep     none by policy gradient, ``<method>.sweep``, if there is one, on reference answers

A row that is trained on a few prompts says how many: ``rows.<row>.shots``.

The planner asks for the same places (``places``), so that a stage depends on what it reads and on nothing else.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from pipeline.core.config import Section, lookup, settings, sources

Objective = Literal["reinforce", "next_token"]


class Sweep(Section):
    """Values that stand in for the two of the training: every rate is tried with every clip.

    learning_rates: of the optimizer. clips: largest norms of the gradient.
    """

    learning_rates: tuple[float, ...] = Field(min_length=1)
    clips: tuple[float, ...] = Field(min_length=1)


class Recipe(Section):
    """What a row's stage reads. adapter: the method's own settings, checked by the method's ``Settings``.

    A subclass names its ``objective`` and says what ``training`` is. The stage has the arguments ``row`` and
    ``method``.
    """

    objective: ClassVar[Objective]

    adapter: dict[str, Any]
    training: Any
    sweep: Sweep | None = None

    @classmethod
    def places(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> tuple[str, ...]:
        where = parts(params, arguments["row"], arguments["method"], cls.objective)
        return tuple(dict.fromkeys(place for part in where.values() for place in sources(params, part)))

    @classmethod
    def read(cls, params: Mapping[str, Any], arguments: Mapping[str, str]) -> Self:
        # Imported here: the planner, which loads no torch, reads this module for the places alone.
        from pipeline.model.forward.adapters import method_module

        where = parts(params, arguments["row"], arguments["method"], cls.objective)
        values = {part: settings(params, place) for part, place in where.items()}
        # Both are checked where they stand, so that an error names that place.
        method_module(arguments["method"], "Settings").Settings.parse(values["adapter"], where["adapter"])
        training: type[Section] = cls.model_fields["training"].annotation  # type: ignore[assignment]
        training.parse(values["training"], where["training"])
        return cls.parse(values, f"rows.{arguments['row']}")


def parts(params: Mapping[str, Any], row: str, method: str, objective: Objective) -> dict[str, str]:
    """The place in params.yaml of each part of a row's recipe."""
    own = lookup(params, f"rows.{row}")
    by_answers = objective == "next_token"
    places = {
        "adapter": "svf" if method == "svf" else f"{method}.adapter",
        "training": f"{method}.training" if by_answers else "reinforce",
    }
    if by_answers and "sweep" in (params.get(method) or {}):
        places["sweep"] = f"{method}.sweep"
    return places | {part: f"rows.{row}.{part}" for part in ("adapter", "training", "sweep", "shots") if part in own}
