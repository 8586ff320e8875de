"""Table 4 of Transformer²: method × objective × modules, and this project's own variants of the training.

What a row is, its adapter's entry in params.yaml says, not its name; what the paper's row beside it is, these three.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.reporting.claims import settled, spelled, verdicts
from pipeline.reporting.papers import BENCHMARKS, PUBLISHED_MODEL, ROWS, row_name
from pipeline.reporting.read import RunSettings
from pipeline.reporting.tables.hyperparameters import flattened

OBJECTIVES = {"policy_gradient": "policy gradient", "next_token": "next token"}
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
class Training:
    """How an adapter was trained.

    differs: the settings told apart that are not the main sections' own, by place. settings: the training's.
    """

    method: str
    objective: str
    modules: tuple[str, ...]
    differs: Mapping[str, str]
    settings: Mapping[str, Any]

    @property
    def length(self) -> str | None:
        """How much of it there was; None where the settings do not say."""
        if self.objective == "next_token" and {"steps", "batch"} <= set(self.settings):
            return f"{self.settings['steps']} steps of {self.settings['batch']} examples"
        if self.objective == "policy_gradient" and {"steps", "prompts", "samples"} <= set(self.settings):
            return f"{self.settings['steps']} steps of {self.settings['prompts'] * self.settings['samples']} answers"
        return None

    @property
    def where(self) -> str:
        """As the paper's table says it: ``mlp``, ``attention``, ``mlp+attention``."""
        parts = [name for name, part in (("mlp", MLP), ("attention", ATTENTION)) if set(part) & set(self.modules)]
        return "+".join(parts)

    @property
    def label(self) -> str:
        letters = ", ".join(name[0] for name in ATTENTION if name in self.modules)
        places = {"mlp": "MLP", "attention": f"attention ({letters})", "mlp+attention": f"MLP + attention ({letters})"}
        if not set(MLP) <= set(self.modules) and "mlp" in self.where:
            places |= dict.fromkeys(("mlp", "mlp+attention"), ", ".join(self.modules))
        words = [METHODS.get(self.method) or ROWS.get(self.method, self.method), OBJECTIVES[self.objective]]
        words.append(places.get(self.where, ", ".join(self.modules)))
        return ", ".join([*words, *(f"{TOLD_APART[place]}{value}" for place, value in self.differs.items())])


def main_settings(settings: RunSettings, method: str, objective: str) -> Mapping[str, Any]:
    """The settings that a variant's are set beside: those of the SVF experts and of the baselines."""
    training = settings.reinforce if objective == "policy_gradient" else settings.lora.get("training", {})
    own = settings.section(method)
    return {"adapter": own if method == "svf" else own.get("adapter", {}), "training": training}


def differing(settings: RunSettings, objective: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """A variant's settings, by place, that the main sections have otherwise or not at all."""
    known = dict(flattened(main_settings(settings, entry["method"], objective), "main"))
    own = {name: entry[name] for name in ("adapter", "training", "sweep") if entry.get(name)}
    return {place.removeprefix("main."): value for place, value in flattened(own, "main") if known.get(place) != value}


def trainings(settings: RunSettings) -> dict[str, Training]:
    """How each adapter of one task was trained, by its path under ``artifacts``."""
    svf = tuple(settings.svf.get("modules", ()))
    found = {
        f"experts/svf-{name}": Training("svf", "policy_gradient", svf, {}, settings.reinforce)
        for name in settings.experts
    }
    for name, entry in settings.baselines.items():
        own = settings.section(entry["method"])
        modules = tuple(own.get("adapter", {}).get("modules", ()))
        found[f"experts/{name}"] = Training(entry["method"], "next_token", modules, {}, own.get("training", {}))
    for objective, entries in settings.ablations.items():
        for name, entry in entries.items():
            differs = differing(settings, objective, entry)
            told = {place: differs[place] for place in TOLD_APART if place in differs}
            modules = tuple(entry["adapter"]["modules"])
            found[f"experts/{name}"] = Training(entry["method"], objective, modules, told, entry["training"])
    return found


def variant_settings(settings: RunSettings) -> list[tuple[str, str]]:
    """For Table 6: of every variant, its method and task, and the settings that differ from the main ones."""
    rows = []
    for objective, entries in settings.ablations.items():
        for name, entry in entries.items():
            said = {"method": entry["method"], "task": entry["task"], **differing(settings, objective, entry)}
            rows += [(f"{OBJECTIVES[objective]}: {name}.{place}", str(value)) for place, value in said.items()]
    return rows


def rows_of(settings: RunSettings, key: str = "table4") -> dict[str, Training]:
    """Row of a table to how what stands in it was trained; the base model's is not."""
    known = trainings(settings)
    cells = [cell for cell in settings.cells.values() if key in cell.table]
    return {cell.row: known[cell.adapter] for cell in cells if cell.adapter in known}


def lengths(settings: RunSettings, key: str) -> tuple[str, ...]:
    """A sentence on how long a table's rows were trained: a row that had less of it is not the worse method for it."""
    rows = {row: one for row, one in rows_of(settings, key).items() if one.length}
    if len({one.length for one in rows.values()}) < 2:
        return ()
    names = {row: one.label if key == "table4" else row_name(row) for row, one in rows.items()}
    return (f"How long each was trained: {'; '.join(f'{names[row]}: {one.length}' for row, one in rows.items())}.",)


def published_rows(settings: RunSettings, published: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Row of Table 4 to the paper's row of the same method, objective and modules."""
    rows = published.get("transformer2", {}).get("table4_ablation", {}).get(PUBLISHED_MODEL, [])
    papers = {(row["method"], row.get("objective"), row.get("modules")): row for row in rows}
    found = {
        row: papers[key]
        for row, one in rows_of(settings).items()
        if not one.differs and (key := (one.method, one.objective, one.where)) in papers
    }
    return {"base": papers["base", None, None], **found} if ("base", None, None) in papers else found


def published_of(
    settings: RunSettings, published: Mapping[str, Any], tasks: Iterable[str]
) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    """The paper's accuracies under our rows and tasks, and the benchmark each task stands beside.

    The paper trained on GSM8K and took MATH for the unseen task: the two of the domain math.
    """
    names = {settings.trained.get("math"): "gsm8k", settings.unseen.get("math"): "math"}
    beside = {task: names[task] for task in tasks if task in names}
    rows = published_rows(settings, published)
    accuracies = {(row, task): one[name] / 100 for row, one in rows.items() for task, name in beside.items()}
    return accuracies, {task: BENCHMARKS[name] for task, name in beside.items()}


def claims(
    settings: RunSettings, versus_base: pd.DataFrame, versus_svf: pd.DataFrame, tasks: Sequence[str]
) -> tuple[str, ...]:
    """What the run says of the paper's ablation, from the intervals alone."""
    rows = {row: one for row, one in rows_of(settings).items() if verdicts(versus_base, row, tasks)}

    def of(method: str, objective: str) -> dict[str, Training]:
        chosen = (method, objective)
        return {row: one for row, one in rows.items() if (one.method, one.objective) == chosen and not one.differs}

    said = []
    if rewarded := of("svf", "policy_gradient"):
        word = settled(word for row in rewarded for word in verdicts(versus_base, row, tasks).values())
        each = "; ".join(f"{one.label}: {spelled(versus_base, row, tasks)}" for row, one in rewarded.items())
        said.append(
            "The ablation's claim that SVF under policy gradient improves on the base model, whichever modules it "
            f"scales, {word} in this run: {each}."
        )
    for method, objective in (("svf", "next_token"), ("lora", "policy_gradient")):
        for row, one in of(method, objective).items():
            said.append(f"{one.label}, in the paper behind the base model, is here {spelled(versus_base, row, tasks)}.")
    for row, one in rows.items():
        if row != "svf" and (compared := spelled(versus_svf, row, tasks)):
            said.append(f"{one.label}, against the SVF expert: {compared}.")
    return tuple(said)
