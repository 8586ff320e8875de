"""What is told of variants beside their tables: the model that experts were moved to, and the searches for α."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.papers import row_name
from pipeline.reporting.planned import BASE, SCAN
from pipeline.reporting.read import Run
from pipeline.reporting.tables.comparison import Comparison
from pipeline.reporting.tables.listing import Listing
from pipeline.reporting.wording import percent, signed


def moved_to(key: str, run: Run) -> tuple[str, ...]:
    """A sentence on each other base model that a table is about."""
    return tuple(f"The model that experts are moved to here is {origin(name, run)}." for name in other_bases(key, run))


def base_label(key: str, run: Run) -> dict[str, str]:
    """What the row ``base`` is called in a table about another base model."""
    names = other_bases(key, run, "base")
    return {"base": f"{row_name('base')} '{names[0]}'"} if names else {}


def other_bases(key: str, run: Run, *rows: str) -> list[str]:
    """The base models of a table's cells, or of some of its rows, that are not the one everything is done to."""
    cells = [cell for cell in run.plan.cells_of(key).values() if not rows or cell.row in rows]
    return list(dict.fromkeys(cell.base for cell in cells if cell.base != BASE))


def origin(name: str, run: Run) -> str:
    """Where a base model comes from, in words."""
    if merged := run.plan.merge.get(name):
        tasks = ", ".join(dict.fromkeys(merged.data))
        return (
            f"'{name}', {run.base['base']} itself with a LoRA on {tasks} merged into its weights: of equal shape, "
            "and not of another origin as the paper's"
        )
    source = run.settings.bases.get(name, {}).get("name", name)
    return f"'{name}'" + (f", {source}" if source != name else "")


def is_variant(mixture: Mapping[str, Any], run: Run) -> bool:
    """Whether a search for α is another one than the paper's, has settings of its own, or is of another model."""
    own = "search" in run.settings.rows.get(mixture["row"], {})
    return own or mixture["strategy"] != "few_shot" or mixture["base"] != BASE


def search_claims(run: Run) -> tuple[str, ...]:
    """Which searches for α found something better after their first generation, and what scans over α found."""
    rose, level = [], []
    for mixture in run.mixtures.values():
        trace = mixture["trace"]
        if mixture["strategy"] == SCAN or len({row["iteration"] for row in trace}) < 2:
            continue
        first = max(row["best_accuracy"] for row in trace if row["iteration"] == 0)
        best = max(trace, key=lambda row: row["best_accuracy"])
        if best["best_accuracy"] > first:
            gained = f"{percent(first, 0)} to {percent(best['best_accuracy'], 0)} %"
            rose.append(
                f"{named(mixture)} ({gained}, in generation {best['iteration'] + 1} of {best['configuration']})"
            )
        else:
            level.append(f"{named(mixture)} ({percent(first, 0)} %)")
    scans = tuple(scan_claim(mixture) for mixture in run.mixtures.values() if mixture["strategy"] == SCAN)
    if not rose and not level:
        return scans
    said = f"After its first generation, {len(rose)} of {len(rose) + len(level)} searches for α found a better mixture"
    said += f": {'; '.join(rose)}" if rose else ""
    return (said + (f". These did not: {'; '.join(level)}." if level else "."), *scans)


def named(mixture: Mapping[str, Any]) -> str:
    """What a search is called."""
    return f"{row_name(mixture['row'])} on {mixture['task']}, seed {mixture['seed']}"


def scan_claim(mixture: Mapping[str, Any]) -> str:
    """Whether α matters on the few prompts of a task, by a scan over it."""
    points = [accuracy for row in mixture["trace"] for accuracy in row["accuracies"]]
    low, high = min(points), max(points)
    what = f"{named(mixture)}: of {len(points)} mixtures"
    if low == high:
        return f"{what}, all have {percent(low, 0)} % on the few prompts, so that α does not matter there."
    best = sum(point == high for point in points)
    return (
        f"{what}, the worst has {percent(low, 0)} % on the few prompts, and {best} have the best, {percent(high, 0)} %."
    )


def search_table(run: Run, comparisons: Sequence[Comparison]) -> Listing | None:
    """Every search for α: what it was given, how many prompts it ran, and what it found; None where none varies."""
    if not any(is_variant(mixture, run) for mixture in run.mixtures.values()):
        return None
    rows = tuple(search_line(mixture, run, comparisons) for mixture in run.mixtures.values())
    columns = (
        "adaptation", "task", "α found", "prompts given", "prompts run", "right of those given, %", "test, %",
        "Δ from base",
    )  # fmt: skip
    note = (
        "Prompts run: candidates times prompts, as planned; a candidate that can no longer be among the best is not "
        "answered to the end. Accuracy on the test split in percent with its 95 % interval, and its paired difference "
        "from the base model in points. The paper's light search runs 3 % of the prompts of its full one."
    )
    return Listing("searches", "Searches for α", columns, rows, note)


def search_line(
    mixture: Mapping[str, Any], run: Run, comparisons: Sequence[Comparison]
) -> tuple[str | int | float | None, ...]:
    """One search, with the test accuracy of its row in the first table that shows it."""
    cell = next((cell for cell in run.plan.cells.values() if cell.adapter == mixture["adapter"]), None)
    entries = [table.entry(cell.row, cell.task) for table in comparisons if cell and cell.tables[0] == table.key]
    entry = next((entry for entry in entries if entry), {})
    settings = run.settings.rows.get(mixture["row"], {}).get("search") or run.settings.section("few_shot")
    tested = f"{percent(entry['mean'])} [{percent(entry['low'])}, {percent(entry['high'])}]" if entry else None
    gained = (
        f"{signed(entry['diff'])} [{signed(entry['diff_low'])}, {signed(entry['diff_high'])}]"
        if "diff" in entry
        else None
    )
    prompts = max((row["prompts"] for row in mixture["trace"]), default=None)
    return (
        row_name(mixture["row"]),
        mixture["task"],
        mixture["configuration"],
        settings.get("shots"),
        prompts,
        percent(mixture["accuracy"]),
        tested,
        gained,
    )
