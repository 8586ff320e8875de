"""How many parameters stand behind each row of a table."""

from collections.abc import Mapping

from pipeline.reporting.read import Run
from pipeline.reporting.tables.listing import Trained


def trained_of(key: str, run: Run, papers: Mapping[str, str]) -> dict[str, Trained]:
    """What each row of a table trains; nothing if none does. papers: row to what the paper says of it."""
    cells = {cell.row: cell for cell in reversed(run.settings.cells.values()) if key in cell.table}
    known = {**run.provenance, "base/base": run.base}
    sources = {row: known.get(run.settings.trained_for(cell), {}) for row, cell in cells.items()}
    found = {
        row: Trained(
            one["parameters"], one.get("parameters_without_router"), run.base["base_parameters"], papers.get(row)
        )
        for row, one in sources.items()
        if "parameters" in one
    }
    return found if set(found) - {"base"} else {}
