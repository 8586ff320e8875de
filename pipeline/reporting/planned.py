"""What the report is told: ``plan.yaml``, which names everything a run makes, and the settings it is made with.

The report opens the files that the plan names and no other, so that what a run of another profile left beside them
enters no number.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from pipeline.core.config import Section, lookup
from pipeline.core.errors import UserError
from pipeline.core.reading import read_yaml
from pipeline.reporting.papers import TITLES
from pipeline.training.recipes import Objective, parts

SELECT = "select"  # the strategy that mixes no experts, and takes one of them
SCAN = "scan"  # the strategy that judges a whole grid of mixtures
BASE = "base"  # the base model that everything is done to, unless a table names another
# Stages of sections of the plan that are called otherwise, or share one; and those that the plan has no section for.
# The report's own record is of the report before this one, and is no part of it.
STAGES = {"cells": ("generate", "score"), "train_head": ("train_head", "classify"), "report": ()}
ALONE = ("plan", "code", "fetch")
# The sections whose stages train an adapter, on one task or on several.
TRAINED = ("train_svf", "train_reinforce", "train_supervised", "train_skills", "train_csreft", "grow_skills")


class Item(Section):
    """One stage of the plan. What the report has no use for is left out."""

    model_config = ConfigDict(extra="ignore")


class Cell(Item):
    """One row on one task with one seed: what is generated, scored and compared.

    base: the base model that is adapted. method: module of ``pipeline.methods``. tables: those it stands in.
    adapter: path under ``artifacts``, without suffix.
    """

    base: str = BASE
    method: str
    row: str
    tables: tuple[str, ...]
    task: str
    seed: int
    adapter: str


class Training(Item):
    """What trains one adapter for a row.

    task: of an adapter that is trained on a single task. data: the tasks of one that is trained on several, some of
    them repeated. curve: path of the learning curve under ``artifacts``, without suffix; empty where the curve stands
    beside the adapter.
    """

    row: str
    method: str
    seed: int
    base: str = BASE
    adapter: str
    task: str = ""
    data: tuple[str, ...] = ()
    curve: str = ""

    @property
    def name(self) -> str:
        """What its curve is called."""
        return Path(self.adapter).name

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it is trained on, each task once."""
        return (self.task,) if self.task else tuple(dict.fromkeys(self.data))

    @property
    def curve_path(self) -> str:
        return f"{self.curve}.jsonl" if self.curve else f"{self.adapter}.curve.jsonl"


class Classifier(Item):
    """The training of the expert that names a prompt's domain."""

    seed: int
    base: str = BASE
    adapter: str


class Dispatcher(Item):
    """A first pass.

    adapter: that of the model which is asked for a prompt's domain. experts: paths of those that are mixed.
    """

    row: str
    seed: int
    base: str = BASE
    adapter: str
    experts: tuple[str, ...] = ()


class Adaptation(Item):
    """A search on few-shot prompts of a task.

    strategy: module of ``pipeline.adaptation``. experts: paths of those that are mixed, the last one repeated.
    """

    row: str
    strategy: str
    task: str
    seed: int
    base: str = BASE
    adapter: str
    experts: tuple[str, ...] = ()


class Moved(Item):
    """An expert of one base model, moved to another. expert: its path."""

    expert: str
    adapter: str


class Together(Item):
    """What learns from several tasks: a base model made by merging, or a classification head.

    data: the tasks, some of them repeated.
    """

    data: tuple[str, ...]


class Plan(Section, at=""):
    """The sections of ``plan.yaml``, each from key to item. What the report does not read is kept as it stands."""

    model_config = ConfigDict(extra="allow")

    cells: dict[str, Cell] = Field(default_factory=dict)
    train_svf: dict[str, Training] = Field(default_factory=dict)
    train_reinforce: dict[str, Training] = Field(default_factory=dict)
    train_supervised: dict[str, Training] = Field(default_factory=dict)
    train_skills: dict[str, Training] = Field(default_factory=dict)
    train_csreft: dict[str, Training] = Field(default_factory=dict)
    grow_skills: dict[str, Training] = Field(default_factory=dict)
    fit_classifier: dict[str, Classifier] = Field(default_factory=dict)
    dispatch: dict[str, Dispatcher] = Field(default_factory=dict)
    transfer: dict[str, Moved] = Field(default_factory=dict)
    adapt: dict[str, Adaptation] = Field(default_factory=dict)
    prepare: dict[str, Item] = Field(default_factory=dict)
    heuristics: dict[str, Item] = Field(default_factory=dict)
    merge: dict[str, Together] = Field(default_factory=dict)
    train_head: dict[str, Together] = Field(default_factory=dict)
    spectra: dict[str, Item] = Field(default_factory=dict)
    weigh: dict[str, Item] = Field(default_factory=dict)
    judge: dict[str, Item] = Field(default_factory=dict)
    compare_skills: dict[str, Item] = Field(default_factory=dict)

    def of(self, cells: Mapping[str, Cell]) -> "Plan":
        """The same plan with these cells alone."""
        return self.model_copy(update={"cells": dict(cells)})

    def cells_of(self, *tables: str) -> dict[str, Cell]:
        """The cells that stand in any of some tables."""
        return {key: cell for key, cell in self.cells.items() if set(tables) & set(cell.tables)}

    @property
    def tables(self) -> list[str]:
        """Names of the tables that the cells fill; the papers' first, in their order."""
        places = {name: place for place, name in enumerate(TITLES)}
        names = dict.fromkeys(table for cell in self.cells.values() for table in cell.tables)
        return sorted(names, key=lambda name: places.get(name, len(places)))

    @property
    def stages(self) -> frozenset[str]:
        """Every stage that is planned, as DVC addresses it."""
        sections = {name: getattr(self, name) for name in (*type(self).model_fields, *(self.model_extra or {}))}
        keyed = (
            f"{stage}@{key}"
            for name, items in sections.items()
            for key in items or ()
            for stage in STAGES.get(name, (name,))
        )
        return frozenset((*ALONE, *keyed))

    @property
    def adapters(self) -> dict[str, str]:
        """What is made for the base model: path of each adapter, sorted, to the stage that makes it."""
        makers = {
            item.adapter: f"{section}@{key}"
            for section in (*TRAINED, "fit_classifier", "adapt")
            for key, item in getattr(self, section).items()
            if item.base == BASE
        }
        return dict(sorted(makers.items()))

    @property
    def curves(self) -> dict[str, str]:
        """The learning curves of the base model's adapters, by name, sorted: path of each under ``artifacts``."""
        trained = {item.name: item.curve_path for item in (*(item for _, item in self.trainings), *self.together)}
        classifiers = {key: f"curves/{key}.jsonl" for key, item in self.fit_classifier.items() if item.base == BASE}
        return dict(sorted((trained | classifiers).items()))

    @property
    def gates(self) -> dict[str, list[str]]:
        """Row to the paths of its adapters whose router leaves gates, of the base model's."""
        rows: dict[str, list[str]] = {}
        for item in (*self.train_csreft.values(), *self.grow_skills.values()):
            if item.base == BASE:
                rows.setdefault(item.row, []).append(item.adapter)
        return rows

    @property
    def trainings(self) -> list[tuple[Objective, Training]]:
        """What trains an adapter of the base model on one task, with its objective; not on a few prompts of it."""
        return [
            (objective, item)
            for objective, item in self._on_one_task
            if item.base == BASE and not item.adapter.startswith("adapted/")
        ]

    @property
    def all_trainings(self) -> list[tuple[Objective, Training]]:
        """What trains an adapter of any base model, on one task, a few prompts of it or several tasks."""
        together = (*self.train_skills.values(), *self.train_csreft.values(), *self.grow_skills.values())
        return [*self._on_one_task, *(("next_token", item) for item in together)]

    @property
    def _on_one_task(self) -> list[tuple[Objective, Training]]:
        sections: tuple[tuple[Objective, dict[str, Training]], ...] = (
            ("reinforce", self.train_svf),
            ("next_token", self.train_supervised),
            ("reinforce", self.train_reinforce),
        )
        return [(objective, item) for objective, section in sections for item in section.values()]

    @property
    def together(self) -> list[Training]:
        """What trains an adapter of the base model on several skills."""
        sections = (self.train_skills, self.train_csreft, self.grow_skills)
        return [item for section in sections for item in section.values() if item.base == BASE]

    def trained_for(self, cell: Cell) -> str:
        """Path of what was trained for a cell: of one that a dispatcher mixed for, the dispatcher's own adapter."""
        folder, _, rest = cell.adapter.partition("/")
        dispatcher = self.dispatch.get(rest.partition("/")[0]) if folder == "dispatched" else None
        return dispatcher.adapter if dispatcher else cell.adapter


def read_plan(path: Path) -> Plan:
    """The plan of the active profile, or of a published run."""
    try:
        loaded = read_yaml(path, "run 'selfadapt plan' to write it again")
        return Plan.model_validate_json(json.dumps(loaded["plan"]))
    except FileNotFoundError:
        problem = "no such file"
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"at {'.'.join(str(part) for part in first['loc']) or 'the top'}: {first['msg'].lower()}"
    except (KeyError, TypeError):
        problem = "no mapping 'plan'"
    raise UserError(f"expected a plan in {path}, got {problem}; run 'selfadapt plan' to write it again")


class ReportSettings(Section, at="report"):
    """resamples, seed: of the bootstrap intervals. samples: prompts shown at once, each with all its answers."""

    resamples: int
    seed: int
    samples: int


class RunSettings(Section, at=""):
    """The whole of params.yaml, as far as the report shows it, with every ``like`` resolved.

    tasks, rows, bases: by name. The methods' own settings are shown as they stand, and checked by their stages.
    """

    model_config = ConfigDict(extra="allow")

    profile: str
    tasks: dict[str, dict[str, Any]]
    compute: dict[str, Any]
    report: ReportSettings
    rows: dict[str, dict[str, Any]] = Field(default_factory=dict)
    bases: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def section(self, name: str) -> dict[str, Any]:
        """The settings at the top of the file, or nothing where it has none of this name."""
        return getattr(self, name, None) or {}

    def tasks_of(self, role: str) -> list[str]:
        """The tasks that are ``trained`` or ``unseen``, in the order of params.yaml."""
        return [name for name, task in self.tasks.items() if task.get("role") == role]

    @property
    def domains(self) -> dict[str, str]:
        """Task to domain: the trained tasks, then the unseen ones."""
        return {
            name: self.tasks[name]["data"]["domain"] for role in ("trained", "unseen") for name in self.tasks_of(role)
        }

    @property
    def skills(self) -> list[str]:
        """The domains of the trained tasks, each once."""
        return list(dict.fromkeys(self.domains[name] for name in self.tasks_of("trained")))

    def recipe(self, row: str, method: str, objective: Objective) -> dict[str, dict[str, Any]]:
        """How a row is trained: ``adapter``, ``training`` and, where rates are tried, ``sweep``."""
        params = self.model_dump(mode="json")
        return {part: lookup(params, place) for part, place in parts(params, row, method, objective).items()}

    def own_recipe(self, row: str) -> dict[str, dict[str, Any]]:
        """The parts of a row's recipe that are its own, and not its method's; empty where it has none."""
        return {part: value for part in ("adapter", "training", "sweep") if (value := self.rows.get(row, {}).get(part))}

    def methods(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """The settings that the methods ran with, by section: theirs, the machine's, and the tasks' sizes."""
        known = ("svf", "reinforce", "lora", "reft", "csreft", "classifier", "dispatch", "mixing", "few_shot")
        others = dict.fromkeys(training.method for _, training in plan.trainings)
        shown = [*known[:3], *(name for name in others if name not in known), *known[3:], "compute", "splits", "tasks"]
        return {name: section for name in shown if (section := self.section(name))}
