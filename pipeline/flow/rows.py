"""What ``params.yaml`` says of a comparison: rows, tables, heads, and what the names in them mean.

rows:
  svf:       {method: svf, from: train_svf}
  svf-mlp:   {method: svf, from: train_reinforce, adapter: {like: svf, modules: [gate_proj, up_proj, down_proj]}}
  few_shot:  {method: svf, from: adapt, strategy: few_shot, experts: svf}
tables:
  table1: {tasks: trained, rows: [base, lora, svf]}
  table7: [{tasks: trained, rows: [base, dora, svf]}, {tasks: unseen, rows: [base, best_dora]}]
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from pipeline.core.config import Section, lookup, sources
from pipeline.core.errors import UserError
from pipeline.training.recipes import Objective, parts

BASE = "base"  # the base model that everything is done to, unless a table names another
Maker = Literal[
    "base",
    "train_svf",
    "train_reinforce",
    "train_supervised",
    "train_skills",
    "train_csreft",
    "grow_skills",
    "train_head",
    "dispatch",
    "adapt",
    "transfer",
    "row",
]
OBJECTIVES: dict[str, Objective] = {"train_svf": "reinforce", "train_reinforce": "reinforce"}  # others: next_token


class Row(Section):
    """A line of a table.

    method: module of ``pipeline.methods`` that reads the adapter. from: the stage that makes it; ``base``: nothing
        does; ``row``: it is that of another row, for the task ``of``.
    adapter, training, sweep: its settings, where they are not its method's (see ``pipeline.training.recipes``).
    shots: train_supervised: on so many few-shot prompts of the task instead of its training split.
    skills: train_skills, train_csreft: the tasks trained together (default: the first trained task of each domain).
    alone: train_skills: on one task each. start, task: grow_skills: the row that is grown, and by which task.
    asks: dispatch: ``prompt`` (the base model is asked) or ``classifier``. experts: of which row, or rows, is mixed.
    strategy, search: adapt: module of ``pipeline.adaptation``, and its settings where they are not ``few_shot``.
    order: transfer: ``ordered`` or ``shuffled``. source: the base model whose ``experts`` are moved.
    row, of: another row, and the task whose adapter is taken.
    """

    method: str
    maker: Maker = Field(alias="from", default="base")
    adapter: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    shots: int | None = Field(default=None, ge=1)
    skills: str | tuple[str, ...] = "skills"
    alone: bool = False
    start: str = ""
    task: str = ""
    asks: Literal["prompt", "classifier"] = "prompt"
    experts: str | tuple[str, ...] = "svf"
    strategy: str = ""
    search: dict[str, Any] | None = None
    order: Literal["ordered", "shuffled"] = "ordered"
    source: str = BASE
    row: str = ""
    of: str = ""


class Table(Section):
    """Tasks × rows: a table, or a part of one that has other rows for other tasks.

    tasks: names, or a group: ``trained``, ``unseen``, ``skills`` (the first trained task of each domain). A task with
    the role ``own`` is in no group: it is trained where a table names it.
    base: the model that all its rows adapt. seeds: default: those of the profile. weigh: the choices of its tasks are
    weighed by likelihood, too. judges: who judges its answers, where they have no score.
    """

    tasks: str | tuple[str, ...]
    rows: tuple[str, ...]
    base: str = BASE
    seeds: tuple[int, ...] | None = None
    weigh: bool = False
    judges: tuple[str, ...] = ()


class Heads(Section):
    """Classification heads.

    tasks: read together. label: its place in an example's meta. token: the one that is read, ``last`` or ``first``.
    subsets: of the tasks' examples (``all``: every one), each with its metric and the rows that are trained on it.
    """

    tasks: tuple[str, ...]
    label: str
    token: str
    subsets: dict[str, "Subset"]


class Subset(Section):
    """metric: of ``pipeline.scoring.metrics``. rows: what is trained below the head."""

    metric: str
    rows: tuple[str, ...]


class Compared(Section):
    """A report of benchmarks alone. tables: those it shows. adapters: the folder of what was trained for them."""

    tables: tuple[str, ...]
    adapters: str


class Seeds(Section):
    """seeds: every training and search is done with each of them."""

    seeds: tuple[int, ...] = Field(min_length=1)


class Profile:
    """The settings of a profile, as far as they say what is compared; every name in them is checked as it is used."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params
        self.name = str(lookup(params, "profile"))
        self.seeds = Seeds.parse({"seeds": lookup(params, "seeds")}, "").seeds
        self.rows = {name: Row.parse(value, f"rows.{name}") for name, value in params.get("rows", {}).items()}
        self.tables = {name: _in_parts(value, f"tables.{name}") for name, value in params.get("tables", {}).items()}
        self.heads = {name: Heads.parse(value, f"heads.{name}") for name, value in params.get("heads", {}).items()}
        self.roles = {name: str(lookup(params, f"tasks.{name}.role")) for name in lookup(params, "tasks")}

    def row(self, name: str, where: str) -> Row:
        """The row of this name. where: what names it, for the error."""
        if name not in self.rows:
            raise UserError(
                f"expected a row of params.yaml, but '{where}' names the row '{name}', which is not there; rows are: "
                f"{', '.join(self.rows)}"
            )
        return self.rows[name]

    def task(self, name: str, where: str) -> str:
        """The name itself, if it is a task's. where: what names it, for the error."""
        if name not in self.roles:
            raise UserError(
                f"expected a task of params.yaml, but '{where}' names the task '{name}', which is not there; there are "
                f"{', '.join(self.roles)}"
            )
        return name

    def group(self, wanted: str | Iterable[str], where: str) -> list[str]:
        """The tasks of a group, or those named."""
        if wanted == "skills":
            first: dict[str, str] = {}
            for name in self.group("trained", where):
                first.setdefault(self.domain(name), name)
            return list(first.values())
        if wanted in ("trained", "unseen"):
            return [name for name, role in self.roles.items() if role == wanted]
        return [self.task(name, where) for name in ([wanted] if isinstance(wanted, str) else wanted)]

    def own_asked(self) -> list[str]:
        """The tasks with the role ``own`` in tables with a first pass."""
        asked = [
            task
            for name, parts in self.tables.items()
            for part in parts
            if any(self.row(row, f"tables.{name}.rows").maker == "dispatch" for row in part.rows)
            for task in self.group(part.tasks, f"tables.{name}.tasks")
            if self.roles[task] == "own"
        ]
        return list(dict.fromkeys(asked))

    def domain(self, task: str) -> str:
        """The category that the first pass puts a task's prompts into."""
        return str(lookup(self.params, f"tasks.{task}.data.domain"))

    def teacher(self, task: str) -> str:
        """The task whose expert answers ``task``: itself where it is trained, else the trained one of its domain."""
        if self.roles[self.task(task, "tables")] in ("trained", "own"):
            return task
        same = [name for name in self.group("skills", "tasks") if self.domain(name) == self.domain(task)]
        if not same:
            raise UserError(
                f"params.yaml: expected a trained task of the domain '{self.domain(task)}' for '{task}', got none; add "
                "one"
            )
        return same[0]

    def settings(self, row: str, made: Row) -> list[str]:
        """The places of params.yaml that a row is trained by."""
        objective = OBJECTIVES.get(made.maker, "next_token")
        where = [*parts(self.params, row, made.method, objective).values()]
        where += [f"rows.{row}.shots"] if made.shots else []
        return list(dict.fromkeys(place for part in where for place in sources(self.params, part)))


def _in_parts(value: Any, where: str) -> tuple[Table, ...]:
    """A table as its parts; one that is no list has one part."""
    if isinstance(value, list):
        return tuple(Table.parse(part, f"{where}.{number}") for number, part in enumerate(value))
    return (Table.parse(value, where),)
