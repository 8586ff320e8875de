"""What a profile would make: tables, parameters, memory, prompts and tokens. Only settings and shapes are read.

Everything is counted by the plan: a cell that two tables show is generated once, a sweep trains as often as it has
pairs of a rate and a clip, and every coefficient λ of a training by policy gradient is a training of its own.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.config import lookup, settings
from pipeline.core.errors import UserError
from pipeline.core.reading import read_yaml
from pipeline.data.bases import Source
from pipeline.data.tables import available
from pipeline.data.tasks import built_in, needed_tables
from pipeline.evaluation import memory
from pipeline.evaluation.parameters import BY_REWARD, Item, Plan, counts, of_base
from pipeline.training.recipes import parts

SIZES = Path(__file__).parents[2] / "data/published/sizes.yaml"
SEARCHERS = ("few_shot", "cma_es", "shooting")  # strategies that judge generations of candidates


# ---- tables ----------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table of the report: how many cells it has, and of what it is."""

    name: str
    cells: int
    of: str


def tables(params: Mapping[str, Any], plan: Plan) -> list[Table]:
    """Every table that a plan fills, by number and then by name.

    Transformer²'s Tables 3 and 6 have no cells of their own: they show the seconds of first passes, and settings.
    """
    filled: dict[str, list[Item]] = {}
    for cell in plan["cells"].values():
        for name in cell["tables"]:
            filled.setdefault(name, []).append(cell)
    found = [
        Table(name, len(cells), f"{_words(cells, 'task')} × {_words(cells, 'row')}") for name, cells in filled.items()
    ]
    if dispatched := [cell for cell in plan["cells"].values() if "dispatched/" in cell["adapter"]]:
        found.append(
            Table("table3", 0, f"seconds of both passes of {len(dispatched)} cells, {_words(dispatched, 'row')}")
        )
    if "table1" in filled and "reinforce" in params and "lora" in params:
        found.append(Table("table6", 0, "settings of SVF and LoRA"))
    for name, heads in params.get("heads", {}).items():
        count = sum(item["subset"] in heads["subsets"] for item in plan["train_head"].values())
        found.append(Table(f"heads {name}", count, f"{', '.join(heads['tasks'])} × {', '.join(heads['subsets'])}"))
    return sorted(found, key=lambda table: _place(table.name))


def listed(shown: Sequence[Table]) -> list[str]:
    """The tables as lines."""
    width = max((len(table.name) for table in shown), default=0)
    return ["tables", *(f"  {table.name:{width}}  {table.cells or 'no':>3} cells: {table.of}" for table in shown)]


def _words(cells: Sequence[Item], key: str) -> str:
    return ", ".join(dict.fromkeys(str(cell[key]) for cell in cells))


def _place(name: str) -> tuple[bool, int, str]:
    number = re.fullmatch(r"table(\d+).*", name)
    return (number is None, int(number[1]) if number else 0, name)


# ---- prompts and tokens ----------------------------------------------------------------------------------------------

Work = tuple[int | None, int | None]  # prompts answered or weighed; tokens generated, at most; None: not known


def work(params: Mapping[str, Any], plan: Plan) -> dict[str, Work]:
    """What each entry of dvc.yaml has to answer, all its stages together; entries that answer nothing are left out."""
    found: dict[str, Work] = {}
    for entry, prompts, tokens in _stages(params, plan):
        before = found.get(entry, (0, 0))
        found[entry] = (_sum(before[0], prompts), _sum(before[1], tokens))
    return found


def _stages(params: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, int | None, int | None]]:
    """Each stage that answers prompts: its entry in dvc.yaml, its prompts and tokens."""

    def longest(task: str) -> int:
        return int(settings(params, f"tasks.{task}.decoding").get("max_new_tokens", 0))  # a choice writes nothing

    def tested(item: Item) -> int | None:
        tasks = dict.fromkeys(item.get("asked") or item.get("data") or [item["task"]])
        sizes = [tested_on(params, task, item.get("subset", "all")) for task in tasks]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    for section in BY_REWARD:
        for item in plan[section].values():
            answers = rollouts(params, item)
            yield section, answers, answers * longest(item["task"])
    for _ in plan["fit_classifier"]:
        training = settings(params, "classifier")
        prompts = training["batch"] * training["steps"] + _validations(training) * training["validation_examples"]
        yield "fit_classifier", len(training["kl_coefficients"]) * prompts, 0
    for item in plan["adapt"].values():
        answers = judged(params, item)
        yield "adapt", answers, answers * longest(item["task"])
    for item in plan["cells"].values():
        prompts = tested(item)
        yield "generate", prompts, None if prompts is None else prompts * longest(item["task"])
    for section, entry in (
        ("dispatch", "dispatch"),
        ("weigh", "weigh"),
        ("judge", "judge"),
        ("train_head", "classify"),
    ):
        for item in plan[section].values():
            yield entry, tested(item), 0
    for judge in plan["agree"]:
        yield "agree", int(lookup(params, f"judges.{judge}.pairs")), 0


def rollouts(params: Mapping[str, Any], item: Item) -> int:
    """How many answers a training by policy gradient samples or validates on, at most."""
    where = parts(params, item["row"], item["method"], "reinforce")
    training = settings(params, where["training"])
    sweep = settings(params, where["sweep"]) if "sweep" in where else {"learning_rates": [0], "clips": [0]}
    chosen = settings(params, f"tasks.{item['task']}.decoding").get("choose_by")  # then nothing is sampled
    once = training["steps"] * training["batch"] * (1 if chosen else training["samples"])
    once += _validations(training) * training["validation_examples"]
    return len(sweep["learning_rates"]) * len(sweep["clips"]) * len(training["kl_coefficients"]) * once


def _validations(training: Mapping[str, Any]) -> int:
    """The untrained state, every so many steps, and the last one."""
    return 1 + math.ceil(training["steps"] / training["validate_every"])


def judged(params: Mapping[str, Any], item: Item) -> int:
    """How many answers a search for a mixture has written."""
    own = f"rows.{item['row']}.search"
    search = settings(params, own if "search" in lookup(params, f"rows.{item['row']}") else "few_shot")
    candidates = 1 if item["strategy"] == "uniform" else len(dict.fromkeys(item["experts"]))
    if item["strategy"] in SEARCHERS:
        candidates = len(search["configurations"]) * search["generations"] * search["population"]
    return candidates * search["shots"]


def tested_on(params: Mapping[str, Any], task: str, subset: str = "all") -> int | None:
    """How many test prompts a task, or one of its subsets, has; None where its benchmark's size is not known."""
    data = {**params.get("splits", {}), **settings(params, f"tasks.{task}.data")}
    size, options = data["test"], data["options"]
    subsets = options.get("subsets") or options.get("subset") or []
    subsets = [subset] if subset in subsets else [subsets] if isinstance(subsets, str) else subsets
    if isinstance(size, Mapping):
        return int(size["each"]) * len(subsets)
    if size != "all":
        return int(size)
    known = read_yaml(SIZES).get(task)
    if isinstance(known, Mapping):
        known = sum(known[name] for name in subsets) if set(subsets) <= set(known) else None
    return None if known is None or data["few_shot"] == "all" else known - data["few_shot"]


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


# ---- what a person is told -------------------------------------------------------------------------------------------


def sources(params: Mapping[str, Any], plan: Plan) -> list[str]:
    """What is wrong with the sources of a profile's models and benchmarks, a sentence each; nothing is downloaded."""
    found = []
    for name in plan["download"]:
        source = Source.parse(settings(params, f"bases.{name}"), f"bases.{name}")
        if len(getattr(source, "revision", "0" * 40)) != 40:
            found.append(f"params.yaml: expected 'bases.{name}.revision' to be a commit; pin it")
    for task in plan["prepare"]:
        module = built_in(task)
        options = module.Options.parse(settings(params, f"tasks.{task}.data.options"), f"tasks.{task}.data.options")
        for name, table in needed_tables(module, options).items():
            try:
                available(f"the table '{name}' of {task}", table)
            except UserError as error:
                found.append(str(error))
    return found


def report(params: Mapping[str, Any], plan: Plan) -> tuple[list[str], list[str]]:
    """Lines for a person, and what is wrong, of settings that are known to fit, and of what they plan."""
    wrong = sources(params, plan)
    lines = listed(tables(params, plan))
    for base in (*plan["download"], *plan["initialise"], *plan["merge"], *plan["align_vision"]):
        try:
            trained, misfits = counts(params, plan, base)
            wrong += misfits
            lines.append(f"{of_base(params, base)['name']}: parameters")
            for what, ours, paper, note in trained:
                printed = f"   paper: {paper}" if paper else ""
                lines.append(f"  {ours:>15,}  {what}{printed}{f' ({note})' if note else ''}")
            needs = memory.Needs(params, plan, base)
            lines += memory.listed(needs)
            wrong += memory.misfits(needs)
        except UserError as error:
            wrong.append(str(error))
    lines.append("prompts, and tokens generated at most")
    for entry, (prompts, tokens) in work(params, plan).items():
        numbers = ("all" if value is None else f"{value:,}" for value in (prompts, tokens))
        lines.append("  " + "  ".join(f"{number:>15}" for number in numbers) + f"  {entry}")
    return lines, wrong
