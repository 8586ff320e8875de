"""Which cells were answered by an adapter that is as it began, since validation kept step 0 of its training."""

from pathlib import Path

from pipeline.reporting.planned import SELECT, Adaptation
from pipeline.reporting.read import Run


def untrained_cells(run: Run) -> set[str]:
    """The names of those cells.

    The curve of a training says which step was chosen. An expert that was moved or selected is as trained as the one it
    comes from; a mixture is untrained where all of its experts are. What has no curve is taken to be trained.
    """
    return {name for name, cell in run.plan.cells.items() if _untrained(run, cell.adapter)}


def _untrained(run: Run, adapter: str) -> bool:
    """Whether an adapter, by its path, is as it began."""
    if experts := _experts(run, adapter):
        return all(_untrained(run, expert) for expert in experts)
    curve = run.curves.get(Path(adapter).name)
    if curve is None or not curve["chosen"].any():
        return False
    return int(curve.loc[curve["chosen"].astype(bool), "step"].iloc[0]) == 0


def _experts(run: Run, adapter: str) -> tuple[str, ...]:
    """Paths of the adapters that an adapter is made of; none of one that was trained itself."""
    folder, _, rest = adapter.partition("/")
    if folder == "dispatched" and (dispatcher := run.plan.dispatch.get(rest.partition("/")[0])):
        return dispatcher.experts
    for moved in run.plan.transfer.values():
        if moved.adapter == adapter:
            return (moved.expert,)
    for search in run.plan.adapt.values():
        if search.adapter == adapter:
            return _selected(run, search) if search.strategy == SELECT else search.experts
    return ()


def _selected(run: Run, search: Adaptation) -> tuple[str, ...]:
    """The expert that a search took, by what its adapter's file says; all of them where that is not known."""
    found = run.provenance.get(search.adapter, {})
    if not {"alpha", "experts"} <= set(found):
        return search.experts
    shares = dict(zip(found["experts"], found["alpha"][0], strict=True))
    best = max(shares, key=lambda name: shares[name])
    return tuple(path for path in dict.fromkeys(search.experts) if Path(path).name == best)
