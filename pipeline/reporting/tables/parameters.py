"""What was trained: how many parameters each adapter has, and how many bytes."""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.tables.listing import Listing


def parameter_table(
    provenance: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any], published: Mapping[str, Any]
) -> Listing:
    """Every adapter's parameters, with and without its router, beside the base model's.

    provenance: see ``pipeline.reporting.read.Run``. base: that of the base model. published: the papers' numbers.
    """
    rows: list[tuple[str | int | float | None, ...]] = [
        (f"{base['base']} (base)", None, base["base_parameters"], None, 100.0, None)
    ]
    for path, adapter in provenance.items():
        count, bare = adapter.get("parameters"), adapter.get("parameters_without_router")
        tasks = adapter.get("task") or ", ".join(adapter.get("tasks") or [])
        share = None if count is None else 100 * (count if bare is None else bare) / base["base_parameters"]
        rows.append((path, tasks, count, bare, share, adapter["bytes"]))
    papers = published.get("csreft", {}).get("alpaca_eval_v1", {})
    shown = [row for row in papers.get("rows", ()) if row["method"] in ("lora", "loreft", "csreft")]
    paper = "; ".join(f"{row['method']} {row['win_rate']:.2f} % with {row['params_percent']} %" for row in shown)
    note = "The share counts a router out, as the CS-ReFT paper must have done."
    if paper:
        note += (
            f" That paper's own numbers are of another model and benchmark ({papers['base_model']}, AlpacaEval win "
            f"rate with the share of parameters): {paper}."
        )
    columns = ("adapter", "trained on", "parameters", "without router", "% of the base", "bytes")
    return Listing("parameters", "What was trained", columns, tuple(rows), note)
