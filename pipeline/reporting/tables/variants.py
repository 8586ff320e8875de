"""What is told of variants beside their tables: which model experts were moved to, and what a search cost and found."""

from collections.abc import Sequence

from pipeline.reporting.papers import row_name
from pipeline.reporting.read import Run
from pipeline.reporting.tables.listing import Comparison, Listing, percent, signed


def moved_to(key: str, run: Run) -> tuple[str, ...]:
    """What the other base models of a table are, a sentence each."""
    settings = run.settings
    cells = [cell for cell in settings.cells.values() if key in cell.table]
    return tuple(
        f"The model that experts are moved to here is {origin(name, run)}."
        for name in dict.fromkeys(cell.base for cell in cells if cell.base != "base")
    )


def base_label(key: str, run: Run) -> dict[str, str]:
    """What the row ``base`` of a table is called that is about another base model."""
    cells = [cell for cell in run.settings.cells.values() if key in cell.table and cell.row == "base"]
    names = list(dict.fromkeys(cell.base for cell in cells if cell.base != "base"))
    return {"base": f"{row_name('base')} '{names[0]}'"} if names else {}


def origin(name: str, run: Run) -> str:
    """Where a base model comes from, in words."""
    if merged := run.settings.merged.get(name):
        tasks = ", ".join(merged["data"].values())
        return (
            f"'{name}', {run.base['base']} itself with a LoRA on {tasks} merged into its weights: of equal shape, "
            "and not of another origin as the paper's"
        )
    sources = [group[name] for group in run.settings.bases.values() if name in group]
    return f"'{name}'" + (f", {sources[0]['name']}" if sources and sources[0]["name"] != name else "")


def search_table(run: Run, comparisons: Sequence[Comparison]) -> Listing | None:
    """Every search for α: what it was given, how many prompts it ran, and what it found; None where none varies."""
    if not run.settings.searches:
        return None
    cells = {cell.adapter: cell for cell in run.settings.cells.values()}
    rows: list[tuple[str | int | float | None, ...]] = []
    for name, mixture in run.mixtures.items():
        cell = cells.get(f"adapted/{name}")
        entries = [one.entry(cell.row, cell.task) for one in comparisons if cell and cell.table[0] == one.key]
        entry = next((one for one in entries if one), {})
        own = run.settings.searches.get(name, {}).get("settings", run.settings.few_shot)
        tested = f"{percent(entry['mean'])} [{percent(entry['low'])}, {percent(entry['high'])}]" if entry else None
        gained = (
            f"{signed(entry['diff'])} [{signed(entry['diff_low'])}, {signed(entry['diff_high'])}]"
            if "diff" in entry
            else None
        )
        prompts = max((row["prompts"] for row in mixture["trace"]), default=None)
        found = mixture["configuration"]
        shown = row_name(cell.row) if cell else name
        rows.append(
            (shown, mixture["task"], found, own.get("shots"), prompts, percent(mixture["accuracy"]), tested, gained)
        )
    columns = ("adaptation", "task", "α found", "prompts given", "prompts run", "right of those given, %")
    note = (
        "Prompts run: candidates times prompts, as planned; a candidate that can no longer be among the best is not "
        "answered to the end. Accuracy on the test split in percent with its 95 % interval, and its paired difference "
        "from the base model in points. The paper's light search runs 3 % of the prompts of its full one."
    )
    return Listing("searches", "Searches for α", (*columns, "test, %", "Δ from base"), tuple(rows), note)
