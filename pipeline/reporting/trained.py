"""How many parameters stand behind each row of a table."""

from collections.abc import Mapping

from pipeline.reporting.run import Run
from pipeline.reporting.tables import Trained


def trained_of(key: str, run: Run, papers: Mapping[str, str]) -> dict[str, Trained]:
    """What each row of a table trains. papers: row to what the paper says of it."""
    cells = {cell.row: cell for cell in reversed(run.settings.cells.values()) if key in cell.table}
    sources = {row: run.provenance.get(cell.adapter, {}) for row, cell in cells.items()}
    return {
        row: Trained(
            one["parameters"], one.get("parameters_without_router"), run.base["base_parameters"], papers.get(row)
        )
        for row, one in sources.items()
        if "parameters" in one
    }
