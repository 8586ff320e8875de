"""Table 4 of Transformer²: method × objective × modules, and this project's own variants of the training.

What a row is, its recipe in params.yaml says, not its name; so does which row of the paper stands beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.reporting.papers import BENCHMARKS, PUBLISHED_MODEL, ROWS
from pipeline.reporting.planned import Plan, RunSettings, Training
from pipeline.reporting.read import Run
from pipeline.reporting.tables.hyperparameters import flattened
from pipeline.training.recipes import Objective

OBJECTIVES: Mapping[Objective, str] = {"reinforce": "policy gradient", "next_token": "next token"}
PUBLISHED_OBJECTIVES: Mapping[Objective, str] = {"reinforce": "policy_gradient", "next_token": "next_token"}
METHODS = {"svf": "SVF"}  # the other methods are called as their rows are
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# What tells variants of one method, objective and choice of modules apart, and what a reader calls it.
TOLD_APART = {
    "adapter.parametrisation": "",
    "training.advantage": "advantage ",
    "training.temperature": "temperature ",
    "training.kl_coefficients": "λ ",
}


@dataclass(frozen=True)
class Variant:
    """How an adapter was trained.

    modules: what it adapts. differs: by place, those settings of ``TOLD_APART`` that are not the main sections' own.
    """

    method: str
    objective: Objective
    modules: tuple[str, ...]
    differs: Mapping[str, str]

    @property
    def where(self) -> str:
        """What is adapted, as the paper's table says it: ``mlp``, ``attention``, ``mlp+attention``."""
        parts = [name for name, part in (("mlp", MLP), ("attention", ATTENTION)) if set(part) & set(self.modules)]
        return "+".join(parts)

    @property
    def label(self) -> str:
        """What the row is called in Table 4."""
        letters = ", ".join(name[0] for name in ATTENTION if name in self.modules)
        places = {"mlp": "MLP", "attention": f"attention ({letters})", "mlp+attention": f"MLP + attention ({letters})"}
        if not set(MLP) <= set(self.modules) and "mlp" in self.where:
            places |= dict.fromkeys(("mlp", "mlp+attention"), ", ".join(self.modules))
        words = [METHODS.get(self.method) or ROWS.get(self.method, self.method), OBJECTIVES[self.objective]]
        words.append(places.get(self.where, ", ".join(self.modules)))
        return ", ".join([*words, *(f"{TOLD_APART[place]}{value}" for place, value in self.differs.items())])


def main_settings(settings: RunSettings, method: str, objective: Objective) -> Mapping[str, Any]:
    """The settings that a variant's are set beside: those of the SVF experts, or of LoRA on reference answers."""
    training = settings.section("reinforce" if objective == "reinforce" else "lora")
    own = settings.section(method)
    return {
        "adapter": own if method == "svf" else own.get("adapter", {}),
        "training": training if objective == "reinforce" else training.get("training", {}),
    }


def differing(settings: RunSettings, objective: Objective, row: str, method: str) -> dict[str, str]:
    """Those of a row's own settings, by place, that the main sections have otherwise or not at all."""
    known = dict(flattened(main_settings(settings, method, objective), "main"))
    own = flattened(settings.own_recipe(row), "main")
    return {place.removeprefix("main."): value for place, value in own if known.get(place) != value}


def variant_of(settings: RunSettings, objective: Objective, item: Training) -> Variant:
    """How one adapter was trained."""
    recipe = settings.recipe(item.row, item.method, objective)
    differs = differing(settings, objective, item.row, item.method)
    told = {place: differs[place] for place in TOLD_APART if place in differs}
    modules = tuple(recipe["adapter"].get("modules", ()))
    return Variant(item.method, objective, modules, told)


def variant_settings(plan: Plan, settings: RunSettings) -> list[tuple[str, str]]:
    """For the table of settings: how each row that has a recipe of its own differs from the main sections."""
    trained: dict[tuple[Objective, str], list[Training]] = {}
    for objective, item in [*plan.trainings, *(("next_token", item) for item in plan.together)]:
        if settings.own_recipe(item.row):
            trained.setdefault((objective, item.row), []).append(item)
    lines = []
    for (objective, row), items in trained.items():
        name = items[0].name if len(items) == 1 else row
        tasks = ", ".join(dict.fromkeys(item.task for item in items if item.task))
        about = {"method": items[0].method, **({"task": tasks} if tasks else {})}
        about |= differing(settings, objective, row, items[0].method)
        lines += [(f"{OBJECTIVES[objective]}: {name}.{place}", value) for place, value in about.items()]
    return lines


def rows_of(run: Run) -> dict[str, Variant]:
    """Row of Table 4 to how its adapter was trained, on one task alone; without the base model's."""
    trainings = {item.adapter: (objective, item) for objective, item in run.plan.trainings}
    rows = {cell.row: trainings.get(cell.adapter) for cell in run.plan.cells_of("table4").values()}
    return {row: variant_of(run.settings, *training) for row, training in rows.items() if training}


def published_rows(run: Run) -> dict[str, Mapping[str, Any]]:
    """Row of Table 4 to the paper's row of the same method, objective and modules."""
    rows = run.published.get("transformer2", {}).get("table4_ablation", {}).get(PUBLISHED_MODEL, [])
    papers = {(row["method"], row.get("objective"), row.get("modules")): row for row in rows}
    beside = {
        row: papers[key]
        for row, variant in rows_of(run).items()
        if not variant.differs
        and (key := (variant.method, PUBLISHED_OBJECTIVES[variant.objective], variant.where)) in papers
    }
    return {"base": papers["base", None, None], **beside} if ("base", None, None) in papers else beside


def published_of(run: Run, tasks: Iterable[str]) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """The paper's accuracies under our rows and tasks, and the benchmark each task stands beside.

    The paper trained on GSM8K and took MATH for the unseen task: the two of the domain math.
    """
    names = {
        task: benchmark
        for role, benchmark in (("unseen", "math"), ("trained", "gsm8k"))
        for task in run.settings.tasks_of(role)
        if run.settings.domains[task] == "math"
    }
    beside = {task: names[task] for task in tasks if task in names}
    rows = published_rows(run)
    accuracies = {(row, task): line[name] / 100 for task, name in beside.items() for row, line in rows.items()}
    return accuracies, {task: BENCHMARKS[name] for task, name in beside.items()}
